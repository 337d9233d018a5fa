#include "engines/caffe/solver/solver.h"

#include <cmath>
#include <numeric>
#include <sstream>

#include "base/log.h"
#include "caffe/solver/solver_fixture.h"
#include "engines/caffe/proto/solver_state_file.h"

namespace poseidon::caffe {
namespace {

using testing::Alone;
using testing::error_of;
using testing::NotingHost;
using testing::values_of;

class SolverTest : public testing::SolverTest {};

std::vector<double> all_values(const Net& net) {
  std::vector<double> values;
  for (const NetArray& array : net.arrays()) {
    const std::vector<double> more = values_of(array.value);
    values.insert(values.end(), more.begin(), more.end());
  }
  return values;
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << "element " << i;
}

// A net whose gradient is always the same: the sum over 2 records of wx + b, with x = 1 and 3.
constexpr std::string_view kLinear = R"(net_param {
    layer { name: 'data' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 1 } } }
    layer { name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y' param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
            inner_product_param { num_output: 1 weight_filler { value: 0.5 } bias_filler { value: -1 } } loss_weight: 1 } } )";

TEST(Solver, UpdatesAsCaffeDoesWithTheRateInsideTheHistory) {
  Alone alone(proto::parse_text(base::concat(kLinear,
                                             "base_lr: 0.1 momentum: 0.9 weight_decay: 0.2 lr_policy: 'exp' gamma: 0.5 "
                                             "max_iter: 4 snapshot_after_train: false"),
                                "SolverParameter", "s"));
  alone.solver.net().feed("x", testing::tensor_of({1, 3}, {2, 1}));
  NotingHost host;
  alone.train(host);
  double w = 0.5;
  double b = -1;
  double vw = 0;
  double vb = 0;
  double rate = 0.1;
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(host.iterations[i].loss, 4 * w + 2 * b, 1e-12);
    EXPECT_NEAR(host.iterations[i].rate, rate, 1e-15);
    vw = 0.9 * vw + rate * (4 + 0.2 * w);
    vb = 0.9 * vb + 2 * rate * 2;
    w -= vw;
    b -= vb;
    rate *= 0.5;
  }
  expect_near(all_values(alone.solver.net()), {w, b}, 1e-12);
}

TEST(Solver, AdvancesToAnIterationAndNoFurther) {
  const proto::Message settings = proto::parse_text(
      base::concat(kLinear, "base_lr: 0.1 lr_policy: 'fixed' max_iter: 4 snapshot_after_train: false"),
      "SolverParameter", "s");
  Alone whole(settings);
  Alone parts(settings);
  for (Alone* alone : {&whole, &parts}) alone->solver.net().feed("x", testing::tensor_of({1, 3}, {2, 1}));
  NotingHost host;
  EXPECT_TRUE(parts.solver.advance(parts.exchange, host, 1));
  EXPECT_TRUE(parts.solver.advance(parts.exchange, host, 6));  // beyond max_iter, at which only train() ends
  EXPECT_TRUE(parts.solver.advance(parts.exchange, host, 2));  // nothing to do
  EXPECT_EQ(parts.solver.iteration(), 6u);
  EXPECT_EQ(host.iterations.size(), 6u);
  whole.train();
  // The gradient is always the same: each iteration takes as much.
  parts.exchange.settle_all();
  expect_near(all_values(whole.solver.net()), {0.5 - 4 * 0.4, -1 - 4 * 0.4}, 1e-12);
  expect_near(all_values(parts.solver.net()), {0.5 - 6 * 0.4, -1 - 6 * 0.4}, 1e-12);
}

// Instead of the net's own pass, one that says that each array's gradient is 1.
TEST(Solver, TrainsByAnotherPassAndAnotherRuleThanItsOwn) {
  Net* net = nullptr;
  std::vector<Iteration> passes;
  SolverOptions options{.dtype = at::kDouble, .type = "Nesterov"};
  options.run_pass = [&](const Pass& pass) {
    passes.push_back(pass.iteration);
    for (const NetArray& array : net->arrays()) {
      at::Tensor value = array.value;
      value.mutable_grad() = testing::tensor_of({1}, {1}).view(value.sizes());
    }
    return 7.0;
  };
  Alone alone(proto::parse_text(base::concat(kLinear,
                                             "base_lr: 0.1 momentum: 0.5 lr_policy: 'fixed' max_iter: 1 type: 'SGD' "
                                             "snapshot_after_train: false"),
                                "SolverParameter", "s"),
              options);
  net = &alone.solver.net();
  NotingHost host;
  alone.train(host);
  EXPECT_EQ(passes, std::vector<Iteration>{0});
  EXPECT_EQ(host.iterations[0].loss, 7);
  // V' = rate g, and Nesterov's step is (1 + momentum) V'.
  expect_near(all_values(*net), {0.5 - 1.5 * 0.1, -1 - 1.5 * 0.2}, 1e-12);
}

TEST(Solver, SmoothsTheLossOverTheLastIterations) {
  Alone alone(proto::parse_text(base::concat(kLinear,
                                             "base_lr: 0.1 lr_policy: 'fixed' max_iter: 5 average_loss: 3 display: 2 "
                                             "snapshot_after_train: false"),
                                "SolverParameter", "s"));
  alone.solver.net().feed("x", testing::tensor_of({1, 3}, {2, 1}));
  NotingHost host;
  alone.train(host);
  const auto loss = [&](std::size_t i) { return host.iterations[i].loss; };
  EXPECT_DOUBLE_EQ(host.iterations[0].smoothed_loss, loss(0));
  EXPECT_DOUBLE_EQ(host.iterations[1].smoothed_loss, (loss(0) + loss(1)) / 2);
  EXPECT_DOUBLE_EQ(host.iterations[4].smoothed_loss, (loss(2) + loss(3) + loss(4)) / 3);
  EXPECT_TRUE(host.iterations[0].display);
  EXPECT_FALSE(host.iterations[1].display);
  EXPECT_EQ(host.iterations[1].records, 2u);
}

// x = (1, 3), y = x/2 − 1 = (−0.5, 0.5), z = (0, 0.5); so dy = (0, 1), dw = 3 and db = 1.
TEST(Solver, LogsTheSizesOfValuesAndGradientsWithDebugInfo) {
  constexpr std::string_view kNet = R"(net_param {
      layer { name: 'data' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 1 } } }
      layer { name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y' param { name: 'w' }
              inner_product_param { num_output: 1 weight_filler { value: 0.5 } bias_filler { value: -1 } } }
      layer { name: 'relu' type: 'ReLU' bottom: 'y' top: 'z' loss_weight: 1 } }
      base_lr: 0.1 lr_policy: 'fixed' max_iter: 2 snapshot_after_train: false debug_info: true )";
  const auto logged = [&](std::string_view more) {
    Alone alone(proto::parse_text(base::concat(kNet, more), "SolverParameter", "s"));
    alone.solver.net().feed("x", testing::tensor_of({1, 3}, {2, 1}));
    ::testing::internal::CaptureStderr();
    alone.train();
    std::vector<std::string> lines;
    std::istringstream text(::testing::internal::GetCapturedStderr());
    for (std::string line; std::getline(text, line);) {
      if (line.find('[') != line.npos) lines.push_back(line.substr(line.find_last_of('[')));
    }
    return lines;
  };
  base::log::configure("test", base::log::Level::kInfo);
  EXPECT_EQ(logged("display: 2"),
            (std::vector<std::string>{
                "[Forward] Layer data, top blob x data: 2", "[Forward] Layer ip, top blob y data: 0.5",
                "[Forward] Layer ip, param blob w data: 0.5", "[Forward] Layer ip, param blob 1 data: 1",
                "[Forward] Layer relu, top blob z data: 0.25", "[Backward] Layer relu, bottom blob y diff: 0.5",
                "[Update] ip.weight data: 0.5; diff: 3", "[Update] ip.bias data: 1; diff: 1"}));
  EXPECT_TRUE(logged("").empty()) << "as in Caffe, only with a display";
}

TEST_F(SolverTest, TestsTrainsAndSavesWhenCaffeDoes) {
  Alone alone(settings(4, "max_iter: 6 test_iter: 2 test_interval: 3 snapshot: 4 snapshot_after_train: true"));
  NotingHost host;
  EXPECT_TRUE(alone.train(host));
  EXPECT_EQ(host.notes,
            "test 0; iteration 0; iteration 1; iteration 2; test 3; iteration 3; snapshot 4; iteration 4; "
            "iteration 5; snapshot 6; test 6; ");
  EXPECT_EQ(host.snapshots[0].files.model, prefix() + "_iter_4.caffemodel");
  EXPECT_TRUE(std::filesystem::exists(prefix() + "_iter_6.solverstate"));
}

TEST_F(SolverTest, TestsNotBeforeTrainingWhereToldSo) {
  Alone alone(settings(4, "max_iter: 2 test_iter: 1 test_interval: 2 test_initialization: false"));
  NotingHost host;
  alone.train(host);
  EXPECT_EQ(host.notes, "iteration 0; iteration 1; test 2; ");
}

TEST_F(SolverTest, StopsAndSavesWhenTheHostWishes) {
  struct Wishing : NotingHost {
    Wish wish(Iteration done) override { return done == 2 ? Wish::kSnapshot : done == 3 ? Wish::kStop : Wish::kGoOn; }
  };
  Alone alone(settings(4, "snapshot_after_train: true"));
  Wishing host;
  EXPECT_FALSE(alone.train(host));
  EXPECT_EQ(host.notes, "iteration 0; iteration 1; snapshot 2; iteration 2; snapshot 3; ");
  EXPECT_EQ(alone.solver.iteration(), 3u);
}

TEST_F(SolverTest, TrainsFewerIterationsWhereTheProgramSaysSo) {
  Alone alone(settings(4, ""), {.dtype = at::kDouble, .iterations_max = 3});
  NotingHost host;
  EXPECT_TRUE(alone.train(host));
  EXPECT_EQ(host.iterations.size(), 3u);
}

TEST_F(SolverTest, LearnsTheTrainingSet) {
  Alone alone(settings(23, "max_iter: 100"), {.dtype = at::kFloat});
  NotingHost host;
  alone.train(host);
  EXPECT_LT(host.iterations.back().smoothed_loss, 0.5 * host.iterations.front().loss);
}

TEST_F(SolverTest, RepeatsARunBitForBit) {
  const auto digest = [&](std::string_view seed) {
    Alone alone(settings(4, seed), {.dtype = at::kFloat});
    alone.train();
    return alone.solver.digest(alone.exchange);
  };
  EXPECT_EQ(digest("random_seed: 3"), digest("random_seed: 3"));
  EXPECT_NE(digest("random_seed: 3"), digest("random_seed: 4"));
}

// A worker whose gradients the test itself sums.
class Worker final : public aten::GradientExchange {
 public:
  Worker(const proto::Message& settings, int rank, int workers, Update update = Update::kAverage)
      : solver(settings, standard_layers(), {.dtype = at::kDouble, .update = update}), rank_(rank), workers_(workers) {}

  int rank() const override { return rank_; }
  int workers() const override { return workers_; }
  void begin(Iteration) override {}
  void accumulate(bool) override {}
  void settle(LayerId) override {}
  void settle_all() override {}
  at::Tensor linear(LayerId, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) override {
    return x.matmul(weight.t()) + bias;
  }

  Solver solver;

 private:
  int rank_;
  int workers_;
};

void sum_and_update(std::vector<std::unique_ptr<Worker>>& workers, Iteration iteration) {
  const std::vector<aten::LayerParameters>& layers = workers[0]->solver.net().parameters();
  for (std::uint32_t layer = 0; layer < layers.size(); ++layer) {
    for (std::size_t i = 0; i < layers[layer].parameters.size(); ++i) {
      at::Tensor sum;
      for (const auto& worker : workers) {
        at::Tensor& gradient = worker->solver.net().parameters()[layer].parameters[i].mutable_grad();
        sum = sum.defined() ? sum + gradient : gradient.clone();
        gradient.reset();
      }
      for (const auto& worker : workers) {
        worker->solver.update_function()({.layer = LayerId{layer},
                                          .parameter = i,
                                          .iteration = iteration,
                                          .sum = sum,
                                          .contributors = static_cast<std::uint32_t>(workers.size())});
      }
    }
  }
}

TEST_F(SolverTest, TrainsOnManyWorkersWhatOneTrainsWithTheWholeBatch) {
  Alone whole(settings(8, ""));
  NotingHost host;
  whole.train(host);
  for (const int count : {2, 4}) {
    std::vector<std::unique_ptr<Worker>> workers;
    for (int rank = 0; rank < count; ++rank) {
      workers.push_back(std::make_unique<Worker>(settings(8 / count, ""), rank, count));
    }
    for (Iteration iteration = 0; iteration < 10; ++iteration) {
      double loss = 0;
      for (const auto& worker : workers) loss += worker->solver.step(*worker).loss / count;
      EXPECT_NEAR(loss, host.iterations[iteration].loss, 1e-12);
      sum_and_update(workers, iteration);
    }
    expect_near(all_values(workers[0]->solver.net()), all_values(whole.solver.net()), 1e-12);
    EXPECT_EQ(all_values(workers[0]->solver.net()), all_values(workers.back()->solver.net()));
  }
}

// A sum of four gradients at a quarter of the rate is their mean at the whole rate; so is what is clipped at four times
// the norm, with four times the decay.
TEST_F(SolverTest, AddsWorkersGradientsWhereToldSo) {
  const auto text = [&](int batch, std::string_view numbers) {
    return proto::parse_text(base::concat("net_param { ", net(batch), " } lr_policy: 'inv' gamma: 0.1 power: 0.75 ",
                                          "momentum: 0.9 max_iter: 10 snapshot_after_train: false ", numbers),
                             "SolverParameter", "solver.prototxt");
  };
  Alone whole(text(8, "base_lr: 0.1 weight_decay: 0.01 clip_gradients: 1"));
  whole.train();
  const proto::Message quarter = text(2, "base_lr: 0.025 weight_decay: 0.04 clip_gradients: 4");
  std::vector<std::unique_ptr<Worker>> workers;
  for (int rank = 0; rank < 4; ++rank) workers.push_back(std::make_unique<Worker>(quarter, rank, 4, Update::kSum));
  for (Iteration iteration = 0; iteration < 10; ++iteration) {
    for (const auto& worker : workers) worker->solver.step(*worker);
    sum_and_update(workers, iteration);
  }
  expect_near(all_values(workers[0]->solver.net()), all_values(whole.solver.net()), 1e-12);
}

// Every rule, with all that changes what a gradient is: several batches in an iteration, and a norm that some of the
// gradients are above.
TEST_F(SolverTest, TrainsOnManyWorkersWhatOneTrainsByEveryRule) {
  for (const std::string_view rule :
       {"type: 'SGD' momentum: 0.9", "type: 'Nesterov' momentum: 0.9", "type: 'AdaGrad' delta: 1e-4",
        "type: 'RMSProp' delta: 1e-4", "type: 'AdaDelta' momentum: 0.95 delta: 1e-4",
        "type: 'Adam' momentum: 0.9 delta: 1e-4"}) {
    const std::string more = base::concat(rule, " iter_size: 3 clip_gradients: 1");
    Alone whole(settings(8, more));
    NotingHost host;
    whole.train(host);
    Alone free(settings(8, base::concat(rule, " iter_size: 3")));
    free.train();
    EXPECT_NE(all_values(whole.solver.net()), all_values(free.solver.net())) << "nothing was clipped";
    std::vector<std::unique_ptr<Worker>> workers;
    for (int rank = 0; rank < 4; ++rank) workers.push_back(std::make_unique<Worker>(settings(2, more), rank, 4));
    for (Iteration iteration = 0; iteration < 10; ++iteration) {
      double loss = 0;
      for (const auto& worker : workers) loss += worker->solver.step(*worker).loss / 4;
      EXPECT_NEAR(loss, host.iterations[iteration].loss, 1e-9) << rule;
      sum_and_update(workers, iteration);
    }
    EXPECT_EQ(all_values(workers[0]->solver.net()), all_values(workers.back()->solver.net())) << rule;
  }
}

TEST_F(SolverTest, AddsUpTheGradientsOfSeveralBatches) {
  Alone whole(settings(8, "max_iter: 6 snapshot_after_train: true"));
  NotingHost one;
  whole.train(one);
  const std::string state = prefix() + "_iter_6.solverstate";
  const std::uint64_t position = proto::read_solver_state(state).resume->data_positions[0].next_record;
  Alone parts(settings(2, "max_iter: 6 snapshot_after_train: true iter_size: 4"));
  NotingHost four;
  parts.train(four);
  expect_near(all_values(parts.solver.net()), all_values(whole.solver.net()), 1e-12);
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(four.iterations[i].loss, one.iterations[i].loss, 1e-12);
  EXPECT_EQ(four.iterations[0].records, 8u);
  EXPECT_EQ(proto::read_solver_state(state).resume->data_positions[0].next_record, position);
}

// The gradient of kLinear is (4, 2), of norm √20, before the decay; Caffe compares it before it divides by iter_size,
// so two batches of it have 2 √20.
TEST(Solver, ClipsTheNormOfTheWholeGradient) {
  const auto after = [](std::string_view more) {
    Alone alone(
        proto::parse_text(base::concat(kLinear, "base_lr: 0.1 weight_decay: 0.5 lr_policy: 'fixed' max_iter: 1 ",
                                       "snapshot_after_train: false ", more),
                          "SolverParameter", "s"));
    alone.solver.net().feed("x", testing::tensor_of({1, 3}, {2, 1}));
    alone.train();
    return all_values(alone.solver.net());
  };
  const double norm = std::sqrt(20.0);
  const auto expected = [](double scale) {
    return std::vector<double>{0.5 - 0.1 * (4 * scale + 0.5 * 0.5), -1 - 0.2 * (2 * scale)};
  };
  expect_near(after(""), expected(1), 1e-14);
  expect_near(after("clip_gradients: 5"), expected(1), 1e-14);
  expect_near(after("clip_gradients: 2"), expected(2 / norm), 1e-14);
  expect_near(after("clip_gradients: 0"), expected(0), 1e-14);
  expect_near(after("clip_gradients: 5 iter_size: 2"), expected(5 / (2 * norm)), 1e-14);
}

TEST_F(SolverTest, TestsTheSameBatchesForAnyNumberOfWorkers) {
  const std::string_view test = "test_iter: 5 test_interval: 1";
  Alone alone(settings(4, test));
  NotingHost host;
  alone.solver.test(alone.exchange, host);
  alone.solver.test(alone.exchange, host);
  // Three workers, which tell each other their scores.
  struct Sharing : NotingHost {
    std::vector<BatchScores> gather(std::vector<BatchScores>) override { return of_all; }
    std::vector<BatchScores> of_all;
  } sharing;
  std::vector<std::unique_ptr<Worker>> workers;
  for (int rank = 0; rank < 3; ++rank) workers.push_back(std::make_unique<Worker>(settings(4, test), rank, 3));
  for (int round = 0; round < 2; ++round) {
    sharing.of_all.clear();
    for (std::uint64_t rank = 3; rank-- > 0;) {
      for (BatchScores& scores : workers[rank]->solver.test_batches(0, rank, 3))
        sharing.of_all.push_back(std::move(scores));
    }
    for (const auto& worker : workers) worker->solver.test(*worker, sharing);
  }
  ASSERT_EQ(sharing.tests.size(), 6u);
  for (std::size_t i = 0; i < 6; ++i) {
    const TestReport& alone_report = host.tests[i / 3];
    ASSERT_EQ(alone_report.scores.size(), 2u);
    EXPECT_EQ(alone_report.scores[0].name, "loss");
    EXPECT_EQ(alone_report.scores[0].loss_weight, 1);
    EXPECT_EQ(alone_report.scores[1].name, "accuracy");
    EXPECT_EQ(alone_report.scores[0].value, sharing.tests[i].scores[0].value);
    EXPECT_EQ(alone_report.scores[1].value, sharing.tests[i].scores[1].value);
    EXPECT_EQ(alone_report.loss, alone_report.scores[0].value);
  }
  EXPECT_NE(host.tests[0].loss, host.tests[1].loss) << "the second test goes on where the first ended";
}

TEST_F(SolverTest, AveragesATestOverTheWholeSet) {
  // 23 batches of one record are the set, each once; so are the first 22 in batches of two, and of eleven.
  const auto accuracy = [&](int batch, int iterations) {
    Alone alone(settings(4, base::concat("test_interval: 1 test_iter: ", iterations), batch));
    NotingHost host;
    alone.solver.test(alone.exchange, host);
    return host.tests[0].scores[1].value * batch * iterations;
  };
  const double of_22 = accuracy(2, 11);
  EXPECT_NEAR(of_22, accuracy(11, 2), 1e-9);
  EXPECT_NEAR(of_22, std::round(of_22), 1e-9);
}

TEST_F(SolverTest, ExplainsWhatIsWrong) {
  EXPECT_EQ(error_of([] {
              Alone(proto::parse_text(base::concat(kLinear, "base_lr: 1 lr_policy: 'fixed'"), "SolverParameter",
                                      "s.prototxt"));
            }),
            "s.prototxt:1:1: the solver needs max_iter");
}

}  // namespace
}  // namespace poseidon::caffe

#include "engines/caffe/solver/solver_settings.h"

#include <fstream>
#include <random>

#include "base/log.h"
#include "caffe/net/damaged_text.h"
#include "caffe/solver/solver_fixture.h"

namespace poseidon::caffe {
namespace {

using testing::error_of;

constexpr std::string_view kRate = " base_lr: 0.1 lr_policy: 'fixed' max_iter: 5 ";

SolverSettings read(std::string_view text) {
  return read_solver_settings(proto::parse_text(text, "SolverParameter", "path/solver.prototxt"));
}
std::string error(std::string_view text) {
  return error_of([&] { read(text); });
}
std::string with_net(std::string_view more) {
  return base::concat("net_param { name: 'n' }", kRate, more);
}

TEST(SolverSettings, HaveCaffesDefaults) {
  const SolverSettings settings = read(with_net(""));
  EXPECT_EQ(settings.max_iterations, 5u);
  EXPECT_TRUE(settings.tests.empty());
  EXPECT_TRUE(settings.test_initialization);
  EXPECT_EQ(settings.average_loss, 1u);
  EXPECT_EQ(settings.batches_per_iteration, 1u);
  EXPECT_FALSE(settings.gradient_norm_max.has_value());
  EXPECT_EQ(settings.snapshot, 0u);
  EXPECT_TRUE(settings.snapshot_after_train);
  EXPECT_EQ(settings.snapshot_prefix, "path/solver");
  EXPECT_FALSE(settings.random_seed.has_value());
}

TEST(SolverSettings, SayThatNamesOfGpusHaveNoEffect) {
  base::log::configure("test", base::log::Level::kInfo);
  ::testing::internal::CaptureStderr();
  read(with_net("device_id: '0,1'"));
  const std::string told = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(told.find("path/solver.prototxt:1:"), std::string::npos) << told;
  EXPECT_NE(told.find("device_id \"0,1\" names GPUs, of which this version uses none"), std::string::npos) << told;
}

TEST(SolverSettings, ReadWhatTheSolverSays) {
  const SolverSettings settings =
      read(with_net("test_iter: 7 test_interval: 50 test_initialization: false display: 20 average_loss: 3 "
                    "weight_decay: 0.5 snapshot: 9 iter_size: 4 clip_gradients: 2.5 "
                    "snapshot_prefix: 'out/x' snapshot_after_train: false random_seed: 12 weights: "
                    "'a.caffemodel,b.caffemodel' weights: 'c'"));
  ASSERT_EQ(settings.tests.size(), 1u);
  EXPECT_EQ(settings.tests[0].iterations, 7u);
  EXPECT_EQ(settings.test_interval, 50u);
  EXPECT_FALSE(settings.test_initialization);
  EXPECT_EQ(settings.display, 20u);
  EXPECT_EQ(settings.average_loss, 3u);
  EXPECT_EQ(settings.weight_decay, 0.5);
  EXPECT_EQ(settings.batches_per_iteration, 4u);
  EXPECT_EQ(settings.gradient_norm_max, 2.5);
  EXPECT_EQ(settings.snapshot, 9u);
  EXPECT_EQ(settings.snapshot_prefix, "out/x");
  EXPECT_FALSE(settings.snapshot_after_train);
  EXPECT_EQ(settings.random_seed, 12u);
  EXPECT_EQ(settings.weights, (std::vector<std::string>{"a.caffemodel", "b.caffemodel", "c"}));
}

TEST(SolverSettings, PutSnapshotsIntoAFolderUnderTheSolversName) {
  const testing_data::TemporaryFolder folder;
  const std::string prefix = (folder / "").string();
  EXPECT_EQ(read(with_net(base::concat("snapshot_prefix: '", prefix, "'"))).snapshot_prefix, prefix + "solver");
}

TEST(SolverSettings, FindTheNetsInCaffesOrder) {
  const testing_data::TemporaryFolder folder;
  testing_data::write_file(folder / "train.prototxt", "name: 'from_file'");
  testing_data::write_file(folder / "test.prototxt", "name: 'test_from_file'");
  const std::string train = (folder / "train.prototxt").string();
  const std::string test = (folder / "test.prototxt").string();
  const SolverSettings settings =
      read(base::concat("net: '", train, "' test_net: '", test, "' test_net_param { name: 'test_message' } ", kRate,
                        "test_interval: 1 test_iter: 1 test_iter: 2 test_iter: 3"));
  EXPECT_EQ(settings.train.net.text("name"), "from_file");
  ASSERT_EQ(settings.tests.size(), 3u);
  EXPECT_EQ(settings.tests[0].source.net.text("name"), "test_message");
  EXPECT_EQ(settings.tests[1].source.net.text("name"), "test_from_file");
  EXPECT_EQ(settings.tests[2].source.net.text("name"), "from_file");
  EXPECT_EQ(settings.tests[2].iterations, 3u);
  const SolverSettings apart =
      read(base::concat("train_net: '", train, "' test_net: '", test, "' ", kRate, "test_interval: 1 test_iter: 1"));
  EXPECT_EQ(apart.train.net.text("name"), "from_file");
  EXPECT_EQ(apart.tests[0].source.net.text("name"), "test_from_file");
}

TEST(SolverSettings, MergeTheNetsStateWithTheSolvers) {
  const SolverSettings settings = read(
      base::concat("net_param { state { level: 1 stage: 'net' } } train_state { level: 2 stage: 'train' } ", kRate,
                   "test_interval: 1 test_iter: 1 test_iter: 1 test_state { stage: 'first' } test_state { level: 5 }"));
  EXPECT_EQ(settings.train.state.phase, Phase::kTrain);
  EXPECT_EQ(settings.train.state.level, 2);
  EXPECT_EQ(settings.train.state.stages, (std::vector<std::string>{"net", "train"}));
  EXPECT_EQ(settings.tests[0].source.state.phase, Phase::kTest);
  EXPECT_EQ(settings.tests[0].source.state.level, 1);
  EXPECT_EQ(settings.tests[0].source.state.stages, (std::vector<std::string>{"net", "first"}));
  EXPECT_EQ(settings.tests[1].source.state.level, 5);
}

TEST(SolverSettings, ExplainWhatIsWrong) {
  EXPECT_EQ(error("base_lr: 1"), "path/solver.prototxt:1:1: the solver needs a net: net: \"FILE\"");
  EXPECT_EQ(error(with_net("\nnet: 'x'")),
            "path/solver.prototxt:2:1: the solver has more than one net to train: net_param and net");
  EXPECT_EQ(error(base::concat(kRate, "\nnet: '/nowhere/net.prototxt'")).substr(0, 52),
            "path/solver.prototxt:2:1: cannot read /nowhere/net.p");
  EXPECT_EQ(error(with_net("\ntest_iter: 3")),
            "path/solver.prototxt:1:1: test_iter asks for tests, and test_interval does not say when");
  EXPECT_EQ(error(with_net("test_interval: 1\ntest_iter: 0")),
            "path/solver.prototxt:2:1: test_iter is 0; a test takes at least 1 batch");
  EXPECT_EQ(error(with_net("test_interval: 1 test_iter: 1\ntest_state { } test_state { }")),
            "path/solver.prototxt:2:1: there are 2 test_state for 1 test nets; give one each, or none");
  EXPECT_EQ(error(with_net("test_net_param { } test_net_param { }\ntest_iter: 1")),
            "path/solver.prototxt:2:1: there are 1 test_iter for 2 test nets; give one each");
  EXPECT_EQ(error(with_net("\nsnapshot: -1")), "path/solver.prototxt:2:1: snapshot is -1; it must not be negative");
  EXPECT_EQ(error(with_net("\niter_size: 0")), "path/solver.prototxt:2:1: iter_size is 0; it must be at least 1");
  EXPECT_EQ(error(with_net("\naverage_loss: 0")), "path/solver.prototxt:2:1: average_loss is 0; it must be at least 1");
}

TEST(SolverSettings, NeverPassOverWhatIsNotSupported) {
  EXPECT_EQ(error(with_net("\nsnapshot_format: HDF5")),
            "path/solver.prototxt:2:1: snapshot_format HDF5 is not supported yet; there is BINARYPROTO");
}

TEST(SolverSettings, NameAPlaceWhateverIsWrong) {
  const std::string whole = base::concat(
      "net_param {\n  name: 'n'\n}\ntest_iter: 7\ntest_interval: 50\ndisplay: 20\naverage_loss: 3\niter_size: 2\nmax_iter: 100\n"
      "base_lr: 0.01\nlr_policy: 'multistep'\ngamma: 0.1\nstepvalue: 10\nstepvalue: 20\nmomentum: 0.9\nweight_decay: 0.0005\n"
      "regularization_type: 'L1'\nclip_gradients: 5\nsnapshot: 10\nsnapshot_prefix: 'x/y'\nsolver_mode: CPU\nrandom_seed: 4\ntype: 'Adam'\n"
      "momentum2: 0.999\ndelta: 1e-8\nsnapshot_format: BINARYPROTO\n");
  ASSERT_EQ(error(whole), "(no error)");
  int refused = 0;
  for (unsigned seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(seed);
    std::string text = whole;
    for (unsigned i = 0; i <= random() % 3; ++i) testing_data::damage(text, random);
    const std::string found = error(text);
    if (found == "(no error)") continue;
    ++refused;
    EXPECT_TRUE(found.starts_with("path/solver.prototxt")) << "seed " << seed << ": " << found << "\n" << text;
  }
  EXPECT_GT(refused, 1500);
  EXPECT_LT(refused, 3000);
}

}  // namespace
}  // namespace poseidon::caffe

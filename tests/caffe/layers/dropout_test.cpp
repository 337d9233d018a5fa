#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>

#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

constexpr std::string_view kText =
    "name: 'drop1' type: 'Dropout' bottom: 'x' top: 'y' dropout_param { dropout_ratio: 0.2 }";

at::Tensor dropped(const Shape& shape, const ForwardContext& context, std::string_view text = kText,
                   at::ScalarType dtype = at::kDouble) {
  return make_layer(text, {shape}, dtype).layer->forward(context, {at::ones(shape, dtype)})[0];
}

TEST(Dropout, DropsTheGivenShareAndScalesTheRest) {
  const std::vector<double> values = values_of(dropped({100, 1000}, {.records = 100}));
  double zeros = 0;
  for (const double value : values) {
    if (value == 0) {
      ++zeros;
    } else {
      ASSERT_EQ(value, 1.25);
    }
  }
  // The deviation of the count of 100,000 trials is 126.
  EXPECT_NEAR(zeros, 20000, 650);
}

TEST(Dropout, DrawsForSeedNameIterationRecordAndElement) {
  const std::vector<double> values = values_of(dropped({2, 5}, {.iteration = 3, .first_record = 64, .records = 2}));
  const base::RandomStream stream(1, "drop1");
  for (std::uint32_t record = 0; record < 2; ++record) {
    for (std::uint32_t i = 0; i < 5; ++i) {
      const bool drops = stream.words(3, 64 + record, i / 4)[i % 4] / 4294967296.0 < 0.2;
      EXPECT_EQ(values[record * 5 + i], drops ? 0 : 1.25);
    }
  }
}

TEST(Dropout, DropsOnManyWorkersWhatOneWorkerDrops) {
  // 37 elements a record: not a multiple of a block.
  const at::Tensor whole = dropped({8, 37}, {.iteration = 5, .first_record = 40, .records = 8});
  std::vector<at::Tensor> parts;
  for (std::uint64_t worker = 0; worker < 4; ++worker) {
    parts.push_back(dropped({2, 37}, {.iteration = 5, .first_record = 40 + 2 * worker, .records = 2}));
  }
  EXPECT_TRUE(at::cat(parts).equal(whole));
  EXPECT_FALSE(dropped({8, 37}, {.iteration = 6, .first_record = 40, .records = 8}).equal(whole));
  EXPECT_FALSE(dropped({8, 37}, {.iteration = 5, .first_record = 48, .records = 8}).equal(whole));
}

TEST(Dropout, DropsOnManyWorkersWhatOneWorkerDropsAlsoWithSeveralRowsPerRecord) {
  const at::Tensor whole = dropped({12, 7}, {.first_record = 8, .records = 4});
  const at::Tensor first = dropped({6, 7}, {.first_record = 8, .records = 2});
  const at::Tensor second = dropped({6, 7}, {.first_record = 10, .records = 2});
  EXPECT_TRUE(at::cat({first, second}).equal(whole));
}

TEST(Dropout, DropsOnManyWorkersWhatOneWorkerDropsInSequences) {
  // [steps, streams, ...]: a stream is a row, whichever worker has it.
  const at::Tensor whole = dropped({3, 8, 5}, {.iteration = 5, .first_record = 40, .records = 8, .record_axis = 1});
  std::vector<at::Tensor> parts;
  for (std::uint64_t worker = 0; worker < 4; ++worker) {
    parts.push_back(dropped(
        {3, 2, 5}, {.iteration = 5, .first_record = 40 + 2 * worker, .records = 2, .record_axis = 1}));
  }
  EXPECT_TRUE(at::cat(parts, 1).equal(whole));
  const base::RandomStream stream(1, "drop1");
  const std::vector<double> values = values_of(whole);
  for (std::uint32_t i = 0; i < 3 * 8 * 5; ++i) {
    const std::uint32_t of_stream = i / 40 * 5 + i % 5;  // by steps, then by what a step has
    const bool drops = stream.words(5, 40 + i / 5 % 8, of_stream / 4)[of_stream % 4] / 4294967296.0 < 0.2;
    EXPECT_EQ(values[i], drops ? 0 : 1.25);
  }
}

TEST(Dropout, DropsTheSameOnAnyNumberOfThreadsAndInFloat) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor on_one = dropped({64, 4096}, {.records = 64});
  at::set_num_threads(3);
  const at::Tensor on_three = dropped({64, 4096}, {.records = 64});
  at::set_num_threads(threads);
  EXPECT_TRUE(on_one.equal(on_three));
  EXPECT_TRUE(dropped({64, 4096}, {.records = 64}, kText, at::kFloat).to(at::kDouble).equal(on_one));
}

TEST(Dropout, PassesEverythingOnInTesting) {
  const at::Tensor x = at::ones({2, 3}, at::kDouble);
  const Made made = make_layer(kText, {{2, 3}}, at::kDouble, Phase::kTest);
  EXPECT_TRUE(made.layer->forward({}, {x})[0].equal(x));
}

TEST(Dropout, WorksInItsBottomsMemoryWhereItMay) {
  const Made made = make_layer(kText, {{4, 9}});
  const at::Tensor wanted = dropped({4, 9}, {.records = 4});
  const at::Tensor x = at::ones({4, 9}, at::kDouble);
  const at::Tensor y = made.layer->forward({.records = 4, .overwrite_bottom = true}, {x})[0];
  EXPECT_EQ(y.const_data_ptr(), x.const_data_ptr());
  EXPECT_TRUE(y.equal(wanted));
}

TEST(Dropout, HasTheGradientsOfFiniteDifferences) {
  std::mt19937_64 random(1);
  Made made = make_layer(kText, {{4, 9}});
  expect_gradients(*made.layer, {random_tensor({4, 9}, random)}, {0},
                   {.iteration = 2, .first_record = 4, .records = 4});
  expect_gradients(*made.layer, {random_tensor({3, 2, 4}, random)}, {0},
                   {.iteration = 2, .first_record = 4, .records = 2, .record_axis = 1});
}

TEST(Dropout, RefusesARatioThatLeavesNothing) {
  EXPECT_EQ(setup_error("name: 'd' type: 'Dropout' bottom: 'x' top: 'y'\ndropout_param { dropout_ratio: 1 }", {{1}}),
            "net.prototxt:2:17: layer \"d\" (Dropout) has dropout_ratio 1; it must be at least 0 and below 1");
}

}  // namespace
}  // namespace poseidon::caffe

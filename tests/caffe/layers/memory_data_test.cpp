#include "caffe/layers/layer_fixture.h"

namespace poseidon::caffe {
namespace {

using namespace testing;  // NOLINT: the fixture is made for these tests

constexpr const char* kText =
    "name: 'm' type: 'MemoryData' top: 'x' top: 'y'\n"
    "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 2 }";

// Six records: record i is (10 i, 10 i + 1), label i.
void feed_six(Layer& layer) {
  layer.feed(0, tensor_of({0, 1, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51}, {6, 1, 1, 2}));
  layer.feed(1, tensor_of({0, 1, 2, 3, 4, 5}, {6, 1, 1, 1}));
}

TEST(MemoryData, YieldsABatchOfWhatItWasGiven) {
  Made made = make_layer(kText, {});
  EXPECT_EQ(made.tops, (std::vector<Shape>{{2, 1, 1, 2}, {2}}));
  EXPECT_EQ(made.layer->records_per_batch(), 2u);
  feed_six(*made.layer);
  for (const std::uint64_t pass : {0, 1, 2, 3, 7}) {
    const double first = static_cast<double>(2 * pass % 6);
    const std::vector<at::Tensor> tops = made.layer->forward({.first_record = 2 * pass}, {});
    expect_near(tops[0], {10 * first, 10 * first + 1, 10 * first + 10, 10 * first + 11}, 0);
    expect_near(tops[1], {first, first + 1}, 0);
  }
}

TEST(MemoryData, GivesEveryWorkerItsPartOfTheGlobalBatch) {
  Made made = make_layer(kText, {});
  feed_six(*made.layer);
  // Worker 1 of 2: records 2 and 3, then 6 and 7, which are 0 and 1 again.
  expect_near(made.layer->forward({.first_record = 2, .record_stride = 4}, {})[1], {2, 3}, 0);
  expect_near(made.layer->forward({.first_record = 6, .record_stride = 4}, {})[1], {0, 1}, 0);
}

TEST(MemoryData, TakesNewArraysAtAnyTime) {
  Made made = make_layer(kText, {});
  feed_six(*made.layer);
  made.layer->feed(0, tensor_of({7, 7, 8, 8}, {2, 1, 1, 2}));
  made.layer->feed(1, tensor_of({3, 4}, {2}));
  const std::vector<at::Tensor> tops = made.layer->forward({.first_record = 4}, {});
  expect_near(tops[0], {7, 7, 8, 8}, 0);
  expect_near(tops[1], {3, 4}, 0);
}

TEST(MemoryData, ExplainsWhatIsWrong) {
  EXPECT_EQ(
      setup_error(
          "name: 'm' type: 'MemoryData' top: 'x' top: 'y'\nmemory_data_param { batch_size: 2 channels: 1 height: 1 }",
          {}),
      "net.prototxt:2:1: layer \"m\" (MemoryData) needs width, at least 1");
  Made made = make_layer(kText, {});
  EXPECT_NE(error_of([&] { made.layer->forward({}, {}); }).find("layer \"m\" (MemoryData) has no records"),
            std::string::npos);
  EXPECT_EQ(
      error_of([&] { made.layer->feed(0, tensor_of({1, 2, 3, 4, 5, 6}, {3, 1, 1, 2})); }),
      "net.prototxt:1:1: layer \"m\" (MemoryData) takes \"x\" as [2, 1, 1, 2] or several such batches, and was given "
      "[3, 1, 1, 2]");
  EXPECT_NE(
      error_of([&] { made.layer->feed(0, tensor_of({1, 2, 3, 4}, {2, 2, 1, 1})); }).find("was given [2, 2, 1, 1]"),
      std::string::npos);
  EXPECT_NE(
      error_of([&] { made.layer->feed(1, tensor_of({1}, {1})); }).find("takes \"y\" as [2] or several such batches"),
      std::string::npos);
  made.layer->feed(0, tensor_of({1, 2, 3, 4}, {2, 1, 1, 2}));
  made.layer->feed(1, tensor_of({1, 2, 3, 4}, {4}));
  EXPECT_NE(error_of([&] { made.layer->forward({}, {}); }).find("was given 2 images and 4 labels"), std::string::npos);
}

}  // namespace
}  // namespace poseidon::caffe

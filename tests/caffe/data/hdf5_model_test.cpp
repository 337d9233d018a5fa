#include "engines/caffe/data/hdf5_model.h"

#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/data/hdf5_file.h"
#include "tests/caffe/data/data_bases.h"

namespace poseidon::caffe {
namespace {

using hdf5::Object;
using proto::Blob;
using proto::TrainedLayer;
using proto::TrainedNet;
using testing_data::error_of;
using testing_data::TemporaryFolder;
using testing_data::write_file;

Blob floats(std::vector<std::int64_t> shape, std::vector<float> values) {
  return {.shape = std::move(shape), .values = std::move(values)};
}
Blob doubles(std::vector<std::int64_t> shape, std::vector<double> values) {
  return {.shape = std::move(shape), .values = std::move(values)};
}

void expect_equal(const Blob& actual, const Blob& wanted) {
  EXPECT_EQ(actual.shape, wanted.shape);
  EXPECT_EQ(actual.values, wanted.values);
}

TrainedNet small_net() {
  return {
      .name = "small",
      .layers = {
          {.name = "conv", .type = "Convolution", .blobs = {floats({2, 1, 1, 2}, {1, 2, 3, 4}), floats({2}, {5, 6})}},
          {.name = "inception/1x1", .type = "InnerProduct", .blobs = {doubles({1, 3}, {0.1, 0.2, 0.3})}},
          {.name = "inception", .type = "Scale", .blobs = {floats({}, {7})}}}};
}

TEST(Hdf5Model, GivesBackLayersInTheOrderOfTheirNames) {
  const TrainedNet wanted = small_net();
  const TrainedNet read = parse_hdf5_model(hdf5_model_bytes(wanted), "m.h5");
  ASSERT_EQ(read.layers.size(), 3u);
  EXPECT_EQ(read.layers[0].name, "conv");
  EXPECT_EQ(read.layers[1].name, "inception");
  EXPECT_EQ(read.layers[2].name, "inception/1x1");
  ASSERT_EQ(read.layers[0].blobs.size(), 2u);
  expect_equal(read.layers[0].blobs[0], wanted.layers[0].blobs[0]);
  expect_equal(read.layers[0].blobs[1], wanted.layers[0].blobs[1]);
  expect_equal(read.layers[1].blobs[0], wanted.layers[2].blobs[0]);
  expect_equal(read.layers[2].blobs[0], wanted.layers[1].blobs[0]);
}

TEST(Hdf5Model, HasCaffesGroups) {
  TrainedNet net = small_net();
  net.layers[0].diffs = {floats({2, 1, 1, 2}, {-1, -2, -3, -4}), floats({2}, {-5, -6})};
  const std::string bytes = hdf5_model_bytes(net);
  const Object file = Object::open_bytes(bytes, "m.h5");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"data", "diff"}));
  EXPECT_EQ(file.at("data").names(), (std::vector<std::string>{"conv", "inception"}));
  EXPECT_EQ(file.at("data").at("conv").names(), (std::vector<std::string>{"0", "1"}));
  EXPECT_EQ(file.at("data").at("inception").names(), (std::vector<std::string>{"0", "1x1"}));
  expect_equal(file.at("diff").at("conv").at("1").read_blob(), net.layers[0].diffs[1]);
  EXPECT_EQ(hdf5_model_bytes(net), bytes) << "no times, no chance";
}

TEST(Hdf5Model, HoldsASharedArrayOnceAndItsDiffsWithAll) {
  const Blob shared = floats({2}, {1, 2});
  const Blob own = floats({1}, {3});
  const auto layer = [&](const char* name) {
    return TrainedLayer{
        .name = name, .type = "x", .blobs = {shared, own}, .diffs = {shared, own}, .share_names = {"w", ""}};
  };
  TrainedNet net{.name = "n", .layers = {layer("first"), layer("second")}};
  net.layers.push_back({.name = "third", .type = "x", .blobs = {shared}, .diffs = {shared}, .share_names = {"w"}});
  const std::string bytes = hdf5_model_bytes(net);
  const Object file = Object::open_bytes(bytes, "m.h5");
  EXPECT_EQ(file.at("data").at("second").names(), std::vector<std::string>{"1"});
  EXPECT_EQ(file.at("data").at("third").names(), std::vector<std::string>{});
  EXPECT_EQ(file.at("diff").at("third").names(), std::vector<std::string>{"0"});

  const TrainedNet read = parse_hdf5_model(bytes, "m.h5");
  ASSERT_EQ(read.layers[1].blobs.size(), 2u);
  EXPECT_TRUE(proto::is_with_another_layer(read.layers[1].blobs[0]));
  expect_equal(read.layers[1].blobs[1], own);
  EXPECT_EQ(read.layers[2].name, "third");
  EXPECT_TRUE(read.layers[2].blobs.empty());
  // And so through the protobuf form, which is how a trainer gets it.
  const TrainedNet passed = proto::parse_model(*proto::model_bytes(read), "m");
  EXPECT_TRUE(proto::is_with_another_layer(passed.layers[1].blobs[0]));
}

TEST(Hdf5Model, SaysWhatIsWrong) {
  const auto error = [](const std::string& bytes) {
    return error_of([&] { static_cast<void>(parse_hdf5_model(bytes, "m.h5")); });
  };
  EXPECT_NE(error("nonsense").find("m.h5 is no HDF5 file, or it is truncated or damaged"), std::string::npos);
  const std::string whole = hdf5_model_bytes(small_net());
  EXPECT_NE(error(whole.substr(0, whole.size() / 2)).find("m.h5"), std::string::npos);
  const Object state = Object::create();
  state.put_integer("iter", 3);
  EXPECT_EQ(error(state.bytes()), "m.h5: has no group \"data\"; a trained model (.caffemodel.h5) was expected");
  const Object odd = Object::create();
  odd.make_group("data/conv").put_integer("weight", 3);
  EXPECT_EQ(error(odd.bytes()),
            "m.h5: /data/conv: has a dataset \"weight\"; those of a layer are called by their numbers, 0, 1, ...");
  const Object text = Object::create();
  text.make_group("data/conv").put_text("0", "words");
  EXPECT_EQ(error(text.bytes()), "m.h5: /data/conv/0: has no numbers but something else");
  EXPECT_NE(error_of([] {
              hdf5_model_bytes({.name = "", .layers = {{.name = "/a", .type = "", .blobs = {}}}});
            }).find("a layer called \"/a\" cannot be written"),
            std::string::npos);
}

proto::SolverState small_state() {
  return {.iteration = 70'000,
          .model_file = "a/b_iter_70000.caffemodel.h5",
          .current_step = 2,
          .history = {floats({2}, {1, 2}), floats({1, 2}, {3, 4})},
          .resume = proto::ResumeState{.model_sha256 = std::string(64, 'a'),
                                       .data_positions = {{"data/train", 1'234'567'890'123}, {"test net 0", 5}},
                                       .random_seed = 1701,
                                       .dtype = "float32",
                                       .solver_type = "SGD",
                                       .workers = 4,
                                       .update = "sum",
                                       .carried = {{"lstm/1", {doubles({1, 2}, {0.1, -3}), floats({2}, {5, 6})}},
                                                   {"lstm/2", {}}}}};
}

TEST(Hdf5State, GivesBackAllThatAStateHas) {
  const proto::SolverState wanted = small_state();
  // Their protobuf form has every field, and is compared whole.
  const proto::SolverState read = parse_hdf5_state(hdf5_state_bytes(wanted), "s.h5");
  EXPECT_EQ(*proto::solver_state_bytes(read), *proto::solver_state_bytes(wanted));
  EXPECT_EQ(read.resume->data_positions[0].next_record, 1'234'567'890'123u);
  EXPECT_EQ(read.resume->update, "sum");
  ASSERT_EQ(read.resume->carried.size(), 2u);
  EXPECT_EQ(read.resume->carried[0].layer, "lstm/1");
  ASSERT_EQ(read.resume->carried[0].blobs.size(), 2u);
  expect_equal(read.resume->carried[0].blobs[0], doubles({1, 2}, {0.1, -3}));
}

// Earlier versions wrote neither how workers' gradients are joined, nor what layers carry.
TEST(Hdf5State, OfAnEarlierVersionIsOneOfAveragedGradients) {
  const Object file = Object::create();
  file.put_integer("iter", 1);
  file.put_integer("current_step", 0);
  static_cast<void>(file.make_group("history"));
  const Object resume = file.make_group("poseidon");
  resume.put_integer("format", 1);
  resume.put_integer64("random_seed", 1701);
  resume.put_integer("workers", 2);
  for (const char* const name : {"model_sha256", "dtype", "solver_type"}) resume.put_text(name, "x");
  static_cast<void>(resume.make_group("data_position"));
  const proto::SolverState read = parse_hdf5_state(file.bytes(), "s.h5");
  EXPECT_EQ(read.resume->update, "average");
  EXPECT_TRUE(read.resume->carried.empty());
}

TEST(Hdf5State, HasCaffesDatasetsAndAGroupOfItsOwn) {
  const std::string bytes = hdf5_state_bytes(small_state());
  const Object file = Object::open_bytes(bytes, "s.h5");
  EXPECT_EQ(file.names(), (std::vector<std::string>{"current_step", "history", "iter", "learned_net", "poseidon"}));
  EXPECT_EQ(file.at("iter").shape(), std::vector<std::int64_t>{1});
  EXPECT_EQ(file.at("history").names(), (std::vector<std::string>{"0", "1"}));
  proto::SolverState state = small_state();
  state.history.assign(12, floats({1}, {0}));
  for (std::size_t i = 0; i < 12; ++i) state.history[i] = floats({1}, {static_cast<float>(i)});
  const proto::SolverState many = parse_hdf5_state(hdf5_state_bytes(state), "s.h5");
  for (std::size_t i = 0; i < 12; ++i) expect_equal(many.history[i], state.history[i]);  // 10 comes behind 9
}

TEST(Hdf5State, OfCaffesHasNoPositions) {
  proto::SolverState state = small_state();
  state.resume.reset();
  EXPECT_FALSE(parse_hdf5_state(hdf5_state_bytes(state), "s.h5").resume.has_value());
}

TEST(Hdf5State, OfALaterFormatIsRefused) {
  const Object file = Object::create();
  file.put_integer("iter", 1);
  file.put_integer("current_step", 0);
  static_cast<void>(file.make_group("history"));
  file.make_group("poseidon").put_integer("format", 2);
  EXPECT_NE(error_of([&] { parse_hdf5_state(file.bytes(), "s.h5"); }).find("is a snapshot of format 2"),
            std::string::npos);
}

TEST(Hdf5Conversion, GoesThroughAChildBothWays) {
  ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1);
  const TrainedNet net = small_net();
  const std::string hdf5 = convert_hdf5(Hdf5Conversion::kModelTo, *proto::model_bytes(net), "m.h5");
  EXPECT_EQ(hdf5, hdf5_model_bytes(net));
  EXPECT_TRUE(is_hdf5(hdf5));
  EXPECT_EQ(parse_any_model(hdf5, "m.h5").layers[2].name, "inception/1x1");
  EXPECT_EQ(parse_any_model(*proto::model_bytes(net), "m").layers[1].name, "inception/1x1");
  const TemporaryFolder folder;
  write_file(folder / "s.h5", hdf5_state_bytes(small_state()));
  EXPECT_EQ(*proto::solver_state_bytes(read_any_solver_state(folder / "s.h5")),
            *proto::solver_state_bytes(small_state()));
}

TEST(Hdf5Conversion, TellsWhatTheChildSays) {
  ::setenv("POSEIDON_DATA_PROGRAM", POSEIDON_DATA_PROGRAM_FOR_TESTS, 1);
  EXPECT_EQ(error_of([] { convert_hdf5(Hdf5Conversion::kStateFrom, hdf5_model_bytes(small_net()), "-s.h5"); }),
            "-s.h5: holds no iteration; a snapshot of a solver (.solverstate.h5) was expected");
}

TEST(Hdf5Conversion, EndsAChildThatTakesTooLongOrDies) {
  const TemporaryFolder folder;
  const auto with_script = [&](const std::string& body, int wait_milliseconds) {
    write_file(folder / "script", "#!/bin/sh\n" + body + "\n");
    std::filesystem::permissions(folder / "script", std::filesystem::perms::owner_all);
    ::setenv("POSEIDON_DATA_PROGRAM", (folder / "script").c_str(), 1);
    return error_of(
        [&] { convert_hdf5(Hdf5Conversion::kModelFrom, "x", "m.h5", std::chrono::milliseconds(wait_milliseconds)); });
  };
  EXPECT_NE(with_script("exec sleep 100", 200).find("took more than 200.0 ms"), std::string::npos);
  EXPECT_EQ(with_script("kill -SEGV $$", 10'000), "m.h5: is damaged: its reader died of SIGSEGV");
  EXPECT_NE(with_script("kill -KILL $$", 10'000).find("was ended by SIGKILL"), std::string::npos);
  EXPECT_NE(with_script("exit 7", 10'000).find("ended with exit code 7"), std::string::npos);
}

TEST(Hdf5, IsKnownByItsFirstBytesOrThoseBehindABlockOfTheUsers) {
  EXPECT_TRUE(is_hdf5("\x89HDF\r\n\x1A\n and more"));
  const auto after = [](std::size_t bytes) { return std::string(bytes, 'x').append("\x89HDF\r\n\x1A\n"); };
  EXPECT_TRUE(is_hdf5(after(1024)));
  EXPECT_FALSE(is_hdf5(after(100)));
  EXPECT_FALSE(is_hdf5(""));
}

}  // namespace
}  // namespace poseidon::caffe

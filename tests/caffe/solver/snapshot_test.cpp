#include "engines/caffe/solver/snapshot.h"

#include <algorithm>

#include "caffe/solver/solver_fixture.h"
#include "engines/caffe/data/data_filter.h"
#include "engines/caffe/net/trained_net.h"
#include "engines/caffe/proto/model_file.h"
#include "engines/caffe/proto/solver_state_file.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

using testing::Alone;
using testing::error_of;
using testing::NotingHost;

class Snapshot : public testing::SolverTest {
 protected:
  // Trains five iterations in float and returns the state of the snapshot at their end.
  std::string five_iterations(std::string_view more = "") {
    Alone alone(settings(4, base::concat("max_iter: 5 snapshot_after_train: true ", more)), {.dtype = at::kFloat});
    alone.train();
    return prefix() + "_iter_5.solverstate";
  }

  std::string restore_error(const std::string& state, const proto::Message& with,
                            SolverOptions options = {.dtype = at::kFloat}) {
    Alone alone(with, options);
    const std::string before = alone.solver.digest(alone.exchange);
    const std::string error = error_of([&] { alone.solver.restore(state); });
    EXPECT_EQ(alone.solver.digest(alone.exchange), before) << "nothing may have changed";
    return error;
  }
};

std::string bytes_of(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void expect_ends_with(const std::string& text, const std::string& end) {
  EXPECT_TRUE(text.ends_with(end)) << text;
}

TEST_F(Snapshot, GoesOnBitForBit) {
  const std::string_view tests = "test_iter: 3 test_interval: 5 test_initialization: false ";
  Alone straight(settings(4, base::concat(tests, "max_iter: 10 snapshot_after_train: true")), {.dtype = at::kFloat});
  NotingHost whole;
  straight.train(whole);
  const std::string model = bytes_of(prefix() + "_iter_10.caffemodel");
  const std::string state = bytes_of(prefix() + "_iter_10.solverstate");
  std::filesystem::remove(prefix() + "_iter_10.caffemodel");
  std::filesystem::remove(prefix() + "_iter_10.solverstate");

  // Stopped before the test at 5, which the second run makes.
  Alone second(settings(4, base::concat(tests, "max_iter: 10 snapshot_after_train: true")), {.dtype = at::kFloat});
  second.solver.restore(five_iterations("test_iter: 3 test_interval: 100 test_initialization: false"));
  EXPECT_EQ(second.solver.iteration(), 5u);
  NotingHost half;
  second.train(half);
  EXPECT_EQ(bytes_of(prefix() + "_iter_10.caffemodel"), model);
  EXPECT_EQ(bytes_of(prefix() + "_iter_10.solverstate"), state) << "momentum and positions included";
  ASSERT_EQ(half.iterations.size(), 5u);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(half.iterations[i].loss, whole.iterations[i + 5].loss);
  ASSERT_EQ(whole.tests.size(), 2u);
  ASSERT_EQ(half.tests.size(), 2u);
  EXPECT_EQ(half.tests[1].loss, whole.tests[1].loss);
}

TEST_F(Snapshot, GoesOnBitForBitByEveryRule) {
  for (const std::string_view rule :
       {"type: 'Nesterov' momentum: 0.9", "type: 'AdaGrad'", "type: 'RMSProp'", "type: 'AdaDelta' momentum: 0.95",
        "type: 'Adam' momentum: 0.9", "type: 'SGD' momentum: 0.9 iter_size: 2 clip_gradients: 1"}) {
    const std::string more = base::concat(rule, " max_iter: 10");
    Alone straight(settings(4, more), {.dtype = at::kFloat});
    straight.train();
    const std::string state = five_iterations(rule);
    Alone second(settings(4, more), {.dtype = at::kFloat});
    second.solver.restore(state);
    second.train();
    EXPECT_EQ(second.solver.digest(second.exchange), straight.solver.digest(straight.exchange)) << rule;
  }
}

// Sequences of three steps whose marks say that all go on, in so many streams.
proto::Message sequences(int streams, std::string_view prefix, std::string_view more) {
  const auto shape = [&](std::string_view rest) {
    return base::concat("shape { dim: 3 dim: ", streams, " ", rest, " } ");
  };
  return proto::parse_text(
      base::concat("net_param { layer { name: 'data' type: 'DummyData' top: 'x' top: 'cont' top: 'wanted' "
                   "dummy_data_param { ",
                   shape("dim: 2"), shape(""), shape("dim: 5"),
                   "data_filler { type: 'gaussian' } data_filler { value: 1 } data_filler { type: 'gaussian' } } } "
                   "layer { name: 'lstm' type: 'LSTM' bottom: 'x' bottom: 'cont' top: 'y' "
                   "recurrent_param { num_output: 5 weight_filler { type: 'xavier' } } } "
                   "layer { name: 'loss' type: 'EuclideanLoss' bottom: 'y' bottom: 'wanted' top: 'loss' } } "
                   "base_lr: 0.1 lr_policy: 'fixed' momentum: 0.9 snapshot_after_train: true snapshot_prefix: '",
                   prefix, "' ", more),
      "SolverParameter", "solver.prototxt");
}

TEST_F(Snapshot, GoesOnBitForBitInTheMiddleOfSequencesInEitherFormat) {
  for (const std::string end : {"", ".h5"}) {
    const std::string more = base::concat("test_iter: 2 test_interval: 3 test_initialization: false snapshot_format: ",
                                          end.empty() ? "BINARYPROTO " : "HDF5 ");
    Alone straight(sequences(4, prefix(), more + "max_iter: 10"));
    NotingHost whole;
    straight.train(whole);
    const std::string model = bytes_of(prefix() + "_iter_10.caffemodel" + end);
    const std::string state = bytes_of(prefix() + "_iter_10.solverstate" + end);
    Alone first(sequences(4, prefix(), more + "max_iter: 5"));
    first.train();
    Alone second(sequences(4, prefix(), more + "max_iter: 10"));
    second.solver.restore(prefix() + "_iter_5.solverstate" + end);
    NotingHost half;
    second.train(half);
    EXPECT_EQ(bytes_of(prefix() + "_iter_10.caffemodel" + end), model);
    EXPECT_EQ(bytes_of(prefix() + "_iter_10.solverstate" + end), state);
    // At 6 and 9; the test net goes on where the test at 3 has left it.
    ASSERT_EQ(half.tests.size(), 2u);
    for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(half.tests[i].loss, whole.tests[i + 1].loss);
  }
}

TEST_F(Snapshot, GivesEachWorkerTheStateOfItsStreams) {
  Alone alone(sequences(4, prefix(), "max_iter: 5"));
  alone.train();
  const std::vector<at::Tensor> all = alone.solver.net().find_layer("lstm")->layer->carried_state();
  ASSERT_EQ(all.size(), 2u);
  for (std::uint64_t rank = 0; rank < 2; ++rank) {
    Alone worker(sequences(2, prefix(), "max_iter: 10"),
                 {.dtype = at::kDouble, .worker = {.rank = rank, .workers = 2}});
    worker.solver.restore(prefix() + "_iter_5.solverstate");
    const std::vector<at::Tensor> own = worker.solver.net().find_layer("lstm")->layer->carried_state();
    ASSERT_EQ(own.size(), 2u);
    const auto begin = static_cast<std::int64_t>(2 * rank);
    for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(own[i].equal(all[i].slice(0, begin, begin + 2)));
  }
}

TEST_F(Snapshot, InHdf5IsRefusedWhereGradientsAreAveragedAndWereAdded) {
  Alone summing(settings(4, "snapshot_format: HDF5 max_iter: 5 snapshot_after_train: true"),
                {.dtype = at::kFloat, .update = Update::kSum});
  summing.train();
  expect_ends_with(restore_error(prefix() + "_iter_5.solverstate.h5", settings(4, ""), {.dtype = at::kFloat}),
                   ": is a snapshot of a training with --update sum, and this one has --update average; go on with "
                   "--update sum, or begin with the model alone (--weights)");
}

TEST_F(Snapshot, IsRefusedWhereGradientsAreAddedAndWereAveraged) {
  expect_ends_with(restore_error(five_iterations(), settings(4, ""), {.dtype = at::kFloat, .update = Update::kSum}),
                   ": is a snapshot of a training with --update average, and this one has --update sum; go on with "
                   "--update average, or begin with the model alone (--weights)");
}

TEST_F(Snapshot, GoesOnBitForBitInHdf5) {
  const std::string_view hdf5 = "snapshot_format: HDF5 max_iter: 10 snapshot_after_train: true";
  Alone straight(settings(4, hdf5), {.dtype = at::kFloat});
  straight.train();
  const std::string model = bytes_of(prefix() + "_iter_10.caffemodel.h5");
  const std::string state = bytes_of(prefix() + "_iter_10.solverstate.h5");
  ASSERT_TRUE(is_hdf5(model));
  ASSERT_TRUE(is_hdf5(state));
  EXPECT_FALSE(std::filesystem::exists(prefix() + "_iter_10.caffemodel"));
  std::filesystem::remove(prefix() + "_iter_10.caffemodel.h5");
  std::filesystem::remove(prefix() + "_iter_10.solverstate.h5");

  five_iterations("snapshot_format: HDF5");
  Alone second(settings(4, hdf5), {.dtype = at::kFloat});
  second.solver.restore(prefix() + "_iter_5.solverstate.h5");
  second.train();
  EXPECT_EQ(bytes_of(prefix() + "_iter_10.caffemodel.h5"), model);
  EXPECT_EQ(bytes_of(prefix() + "_iter_10.solverstate.h5"), state) << "momentum and positions included";
}

TEST_F(Snapshot, InHdf5IsTheSameAsTheOther) {
  const std::string state = five_iterations();
  five_iterations("snapshot_format: HDF5");
  const proto::SolverState plain = proto::read_solver_state(state);
  proto::SolverState hdf5 = read_any_solver_state(state + ".h5");
  EXPECT_EQ(hdf5.model_file, prefix() + "_iter_5.caffemodel.h5");
  hdf5.model_file = plain.model_file;
  hdf5.resume->model_sha256 = plain.resume->model_sha256;
  EXPECT_EQ(*proto::solver_state_bytes(hdf5), *proto::solver_state_bytes(plain));
  Alone one(settings(4, ""), {.dtype = at::kFloat});
  Alone other(settings(4, ""), {.dtype = at::kFloat});
  one.solver.load_weights(prefix() + "_iter_5.caffemodel");
  other.solver.load_weights(prefix() + "_iter_5.caffemodel.h5");
  EXPECT_EQ(other.solver.digest(other.exchange), one.solver.digest(one.exchange));
}

TEST_F(Snapshot, InHdf5IsRefusedWhereItsModelWasChanged) {
  five_iterations("snapshot_format: HDF5");
  const std::string model = prefix() + "_iter_5.caffemodel.h5";
  std::string bytes = bytes_of(model);
  bytes[bytes.size() - 10] = static_cast<char>(bytes[bytes.size() - 10] + 1);
  std::ofstream(model, std::ios::binary) << bytes;
  EXPECT_NE(restore_error(prefix() + "_iter_5.solverstate.h5", settings(4, "")).find("is not the one that was written"),
            std::string::npos);
}

TEST_F(Snapshot, HoldsTheLastStepOfEachArrayWithSnapshotDiff) {
  const auto train = [&](std::string_view more) {
    Alone alone(settings(4, base::concat("snapshot: 1 max_iter: 2 ", more)), {.dtype = at::kDouble});
    alone.train();
  };
  train("snapshot_diff: true");
  const std::string with = bytes_of(prefix() + "_iter_2.caffemodel");
  proto::TrainedNet second = proto::read_model(prefix() + "_iter_2.caffemodel");
  const proto::TrainedNet first = proto::read_model(prefix() + "_iter_1.caffemodel");
  for (std::size_t l = 0; l < first.layers.size(); ++l) {
    for (std::size_t b = 0; b < first.layers[l].blobs.size(); ++b) {
      proto::Blob step = first.layers[l].blobs[b];
      auto& numbers = std::get<std::vector<double>>(step.values);
      const auto& after = std::get<std::vector<double>>(second.layers[l].blobs[b].values);
      for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] -= after[i];
      second.layers[l].diffs.push_back(step);
    }
  }
  EXPECT_EQ(*proto::model_bytes(second), with);
  train("");
  EXPECT_LT(bytes_of(prefix() + "_iter_2.caffemodel").size(), with.size());
}

// As Caffe has them: the first of all six arrays, then the second of all.
TEST_F(Snapshot, HoldsTwoHistoriesOfEachArrayOneAfterTheOther) {
  const proto::SolverState state = proto::read_solver_state(five_iterations("type: 'Adam' momentum: 0.9"));
  Alone alone(settings(4, ""), {.dtype = at::kFloat});
  const std::vector<NetArray>& arrays = alone.solver.net().arrays();
  ASSERT_EQ(state.history.size(), 12u);
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(state.history[i].shape, arrays[i % 6].shape);
  // Only means of squares are never negative.
  const auto negative = [&](std::size_t i) {
    const auto& numbers = std::get<std::vector<float>>(state.history[i].values);
    return std::any_of(numbers.begin(), numbers.end(), [](float x) { return x < 0; });
  };
  EXPECT_TRUE(negative(0));
  for (std::size_t i = 6; i < 12; ++i) EXPECT_FALSE(negative(i));
}

TEST_F(Snapshot, HoldsPositionsSeedAndChecksum) {
  const proto::SolverState state =
      proto::read_solver_state(five_iterations("random_seed: 9 test_iter: 3 test_interval: 5"));
  EXPECT_EQ(state.iteration, 5);
  EXPECT_EQ(state.model_file, prefix() + "_iter_5.caffemodel");
  EXPECT_EQ(state.history.size(), 6u);
  ASSERT_TRUE(state.resume.has_value());
  EXPECT_EQ(state.resume->random_seed, 9);
  EXPECT_EQ(state.resume->dtype, "float32");
  EXPECT_EQ(state.resume->solver_type, "SGD");
  EXPECT_EQ(state.resume->workers, 1u);
  ASSERT_EQ(state.resume->data_positions.size(), 2u);
  EXPECT_EQ(state.resume->data_positions[0].layer, "data");
  EXPECT_EQ(state.resume->data_positions[0].next_record, 20u);
  EXPECT_EQ(state.resume->data_positions[1].layer, "test net 0");
  EXPECT_EQ(state.resume->data_positions[1].next_record, 9u) << "the test at 0; the one at 5 comes after the snapshot";
}

TEST_F(Snapshot, GoesOnWithAnotherBatchWhereItsRecordsEnded) {
  Alone alone(settings(2, ""), {.dtype = at::kFloat});
  alone.solver.restore(five_iterations());
  struct Stopping : NotingHost {
    Wish wish(Iteration) override { return Wish::kStop; }
  } host;
  alone.train(host);
  alone.solver.snapshot(alone.exchange);
  // 5 iterations of 4 records, one of 2.
  EXPECT_EQ(proto::read_solver_state(prefix() + "_iter_6.solverstate").resume->data_positions[0].next_record, 22u);
}

TEST_F(Snapshot, IsFoundWhereBothFilesWereMovedTo) {
  five_iterations();
  std::filesystem::rename(folder_ / "snapshots", folder_ / "moved");
  Alone alone(settings(4, ""), {.dtype = at::kFloat});
  alone.solver.restore(folder_ / "moved" / "small_iter_5.solverstate");
  EXPECT_EQ(alone.solver.iteration(), 5u);
}

TEST_F(Snapshot, IsRefusedWithoutItsModel) {
  const std::string state = five_iterations();
  std::filesystem::remove(prefix() + "_iter_5.caffemodel");
  expect_ends_with(restore_error(state, settings(4, "")),
                   base::concat(": its model ", prefix(),
                                "_iter_5.caffemodel is missing, also beside it; a snapshot is a pair of files"));
}

TEST_F(Snapshot, IsRefusedWithAnotherModel) {
  const std::string state = five_iterations();
  Alone other(settings(4, "random_seed: 2"), {.dtype = at::kFloat});
  ASSERT_TRUE(proto::write_model(prefix() + "_iter_5.caffemodel", trained_net(other.solver.net())).ok());
  expect_ends_with(
      restore_error(state, settings(4, "")),
      "is not the one that was written with it (its SHA-256 is another); take both files from one snapshot");
}

TEST_F(Snapshot, IsRefusedByAnotherNet) {
  const std::string state = five_iterations();
  const auto changed = [&](std::string_view from, std::string_view to) {
    std::string text = base::concat("net_param { ", net(4), " } base_lr: 1 lr_policy: 'fixed' max_iter: 10");
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
    return proto::parse_text(text, "SolverParameter", "solver.prototxt");
  };
  const std::string shape = restore_error(state, changed("num_output: 8", "num_output: 9"));
  EXPECT_NE(shape.find("layer \"ip1\" has array 0 as [8, 16], and the net's layer of this name"), std::string::npos)
      << shape;
  EXPECT_NE(shape.find("has it as [9, 16]: it is of another net"), std::string::npos) << shape;
  expect_ends_with(
      restore_error(state, changed("name: 'ip2'", "name: 'other'")),
      "is of another net: its layers with arrays are conv, ip1 and ip2, and this net's are conv, ip1 and other");
}

TEST_F(Snapshot, IsRefusedInAnotherTypeOfNumbers) {
  expect_ends_with(
      restore_error(five_iterations(), settings(4, ""), {.dtype = at::kDouble}),
      ": is a snapshot in float32, and this training is in float64; go on with --dtype float32, or begin with the "
      "model alone (--weights)");
}

TEST_F(Snapshot, IsRefusedWithAnotherSeed) {
  expect_ends_with(restore_error(five_iterations(), settings(4, "random_seed: 5")),
                   ": was made with random_seed 1, and this solver's is 5; write random_seed: 1 in the solver file");
}

TEST_F(Snapshot, OfCaffesOwnHasNoPositions) {
  const std::string file = five_iterations();
  proto::SolverState state = proto::read_solver_state(file);
  state.resume.reset();
  ASSERT_TRUE(proto::write_solver_state(file, state).ok());
  Alone alone(settings(4, ""), {.dtype = at::kFloat});
  alone.solver.restore(file);
  struct Stopping : NotingHost {
    Wish wish(Iteration) override { return Wish::kStop; }
  } host;
  alone.train(host);
  alone.solver.snapshot(alone.exchange);
  // As if all iterations had had this batch: 6 of 4 records.
  EXPECT_EQ(proto::read_solver_state(prefix() + "_iter_6.solverstate").resume->data_positions[0].next_record, 24u);
}

TEST_F(Snapshot, OfWhichOneFileCannotBeWrittenIsNotThereAtAll) {
  std::filesystem::create_directories(prefix() + "_iter_5.solverstate");  // no file can take the place of a folder
  Alone alone(settings(4, "max_iter: 5 snapshot_after_train: true"), {.dtype = at::kFloat});
  try {
    alone.train();
    ADD_FAILURE() << "it should have failed";
  } catch (const SystemError& error) {
    EXPECT_EQ(std::string(error.what()), base::concat("no snapshot of iteration 5: cannot write ", prefix(),
                                                      "_iter_5.solverstate: Is a directory"));
  }
  EXPECT_FALSE(std::filesystem::exists(prefix() + "_iter_5.caffemodel"))
      << "a model whose state is missing only takes room";
}

TEST_F(Snapshot, MakesItsFolderAlsoWhereNoSettingHasAnnouncedOne) {
  Alone alone(settings(4, "max_iter: 5"), {.dtype = at::kFloat});
  alone.train();
  const SnapshotFiles files = alone.solver.snapshot(alone.exchange);
  EXPECT_TRUE(std::filesystem::exists(files.model));
  EXPECT_TRUE(std::filesystem::exists(files.state));
}

TEST_F(Snapshot, StartsANewTrainingWithItsModelAlone) {
  five_iterations();
  Alone alone(settings(4, base::concat("weights: '", prefix(), "_iter_5.caffemodel'")), {.dtype = at::kFloat});
  Alone restored(settings(4, ""), {.dtype = at::kFloat});
  restored.solver.restore(prefix() + "_iter_5.solverstate");
  EXPECT_EQ(alone.solver.digest(alone.exchange), restored.solver.digest(restored.exchange));
  EXPECT_EQ(alone.solver.iteration(), 0u);
}

}  // namespace
}  // namespace poseidon::caffe

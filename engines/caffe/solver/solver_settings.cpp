#include "engines/caffe/solver/solver_settings.h"

#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using proto::Message;

[[noreturn]] void fail(const Message& solver, std::string_view field, const std::string& text) {
  throw ConfigError(base::concat(solver.position(field).text(), ": ", text));
}

Iteration count_of(const Message& solver, std::string_view field) {
  const std::int64_t value = solver.integer(field);
  if (value < 0) fail(solver, field, base::concat(field, " is ", value, "; it must not be negative"));
  return static_cast<Iteration>(value);
}

std::uint64_t positive_count_of(const Message& solver, std::string_view field) {
  const std::int64_t value = solver.integer(field);
  if (value < 1) fail(solver, field, base::concat(field, " is ", value, "; it must be at least 1"));
  return static_cast<std::uint64_t>(value);
}

void warn_of_what_differs(const Message& solver) {
  if (solver.has("solver_mode") && solver.choice("solver_mode") == "GPU") {
    base::log::warning(base::concat(solver.position("solver_mode").text(),
                                    ": solver_mode is GPU, but there is no support for GPUs yet: training on the CPU"));
  }
  if (solver.has("gpu_names")) {
    base::log::warning(base::concat(solver.position("gpu_names").text(), ": device_id \"", solver.text("gpu_names"),
                                    "\" names GPUs, of which this version uses none: it has no effect; how many "
                                    "workers train is what --workers and --hosts say"));
  }
}

// Of the fields that can name the training net, the one that does.
std::string training_field(const Message& solver) {
  std::vector<std::string> set;
  for (const char* const field : {"train_net_param", "train_net", "net_param", "net"}) {
    if (solver.has(field)) set.push_back(field);
  }
  if (set.empty()) fail(solver, "net", "the solver needs a net: net: \"FILE\"");
  if (set.size() > 1)
    fail(solver, set[1], base::concat("the solver has more than one net to train: ", base::join_words(set)));
  return set[0];
}

Message read_net(const Message& solver, const std::string& field, const std::string& file) {
  if (field.ends_with("_param")) return solver.message(field);
  try {
    return proto::read_text(file, "NetParameter");
  } catch (const ConfigError& error) {
    // The file's own errors carry their place; one that is not there needs the place where it is named.
    if (std::filesystem::exists(file)) throw;
    fail(solver, field, error.what());
  }
}

NetSource training_source(const Message& solver) {
  const std::string field = training_field(solver);
  const Message net = read_net(solver, field, field.ends_with("_param") ? "" : solver.text(field));
  const NetState state = merged(merged({.phase = Phase::kTrain}, net.message("state")), solver.message("train_state"));
  return {.net = net, .state = state};
}

// In Caffe's order: given as messages, given as files, then the net that is trained, as often as test_iter has values
// left.
std::vector<Message> test_nets(const Message& solver, const NetSource& train) {
  std::vector<Message> nets = solver.messages("test_net_param");
  const std::vector<std::string> files = solver.texts("test_net");
  for (const std::string& file : files) nets.push_back(read_net(solver, "test_net", file));
  const std::size_t wanted = solver.count("test_iter");
  const bool generic = solver.has("net") || solver.has("net_param");
  if (nets.size() > wanted || (nets.size() < wanted && !generic)) {
    fail(solver, "test_iter",
         base::concat("there are ", wanted, " test_iter for ", nets.size(), " test nets; give one each"));
  }
  while (nets.size() < wanted) nets.push_back(train.net);
  return nets;
}

std::vector<TestSource> test_sources(const Message& solver, const NetSource& train) {
  const std::vector<Message> nets = test_nets(solver, train);
  const std::vector<Message> states = solver.messages("test_state");
  if (!states.empty() && states.size() != nets.size()) {
    fail(solver, "test_state",
         base::concat("there are ", states.size(), " test_state for ", nets.size(),
                      " test nets; give one each, or none"));
  }
  std::vector<TestSource> sources;
  for (std::size_t i = 0; i < nets.size(); ++i) {
    const std::int64_t iterations = solver.integers("test_iter")[i];
    if (iterations < 1) {
      throw ConfigError(base::concat(solver.position("test_iter", i).text(), ": test_iter is ", iterations,
                                     "; a test takes at least 1 batch"));
    }
    NetState state = merged({.phase = Phase::kTest}, nets[i].message("state"));
    if (!states.empty()) state = merged(std::move(state), states[i]);
    sources.push_back(
        {.source = {.net = nets[i], .state = std::move(state)}, .iterations = static_cast<std::uint64_t>(iterations)});
  }
  if (!sources.empty() && count_of(solver, "test_interval") == 0) {
    fail(solver, "test_interval", "test_iter asks for tests, and test_interval does not say when");
  }
  return sources;
}

// Where the solver gives no prefix, snapshots go beside it under its name; where it gives a folder, into that.
std::string prefix_of(const Message& solver) {
  const std::filesystem::path file = solver.position().file;
  if (!solver.has("snapshot_prefix")) return std::filesystem::path(file).replace_extension().string();
  const std::filesystem::path prefix = solver.text("snapshot_prefix");
  return (std::filesystem::is_directory(prefix) ? prefix / file.stem() : prefix).string();
}

std::vector<std::string> model_files(const Message& solver) {
  std::vector<std::string> files;
  for (const std::string& list : solver.texts("weights")) {
    for (std::size_t begin = 0; begin <= list.size();) {
      const std::size_t end = std::min(list.find(',', begin), list.size());
      if (end > begin) files.push_back(list.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return files;
}

}  // namespace

SolverSettings read_solver_settings(const Message& solver) {
  warn_of_what_differs(solver);
  const NetSource train = training_source(solver);
  // Below zero it is off; a norm of zero is Caffe's too, and ends all training.
  const double clip = solver.real("clip_gradients");
  const std::int64_t seed = solver.integer("random_seed");
  return {.train = train,
          .tests = test_sources(solver, train),
          .test_interval = count_of(solver, "test_interval"),
          .test_initialization = solver.flag("test_initialization"),
          .rate = read_rate_policy(solver),
          .weight_decay = solver.real("weight_decay"),
          .max_iterations = count_of(solver, "max_iter"),
          .display = count_of(solver, "display"),
          .debug_info = solver.flag("debug_info"),
          .average_loss = positive_count_of(solver, "average_loss"),
          .batches_per_iteration = positive_count_of(solver, "iter_size"),
          .gradient_norm_max = clip < 0 ? std::nullopt : std::optional(clip),
          .snapshot = count_of(solver, "snapshot"),
          .snapshot_prefix = prefix_of(solver),
          .snapshot_after_train = solver.flag("snapshot_after_train"),
          .snapshot_diff = solver.flag("snapshot_diff"),
          .snapshot_format =
              solver.choice("snapshot_format") == "HDF5" ? SnapshotFormat::kHdf5 : SnapshotFormat::kProtobuf,
          .random_seed = seed < 0 ? std::nullopt : std::optional(static_cast<std::uint64_t>(seed)),
          .weights = model_files(solver)};
}

}  // namespace poseidon::caffe

// Caffe's own command: where this program is called by a link named `caffe`, it takes Caffe's command lines as they are.
//
//   caffe train --solver=lenet_solver.prototxt -weights a.caffemodel,b.caffemodel --sigint_effect=stop
//   caffe test -model lenet_train_test.prototxt -weights lenet.caffemodel -iterations 100
//   caffe time -model lenet_train_test.prototxt -iterations 10
//   caffe device_query
//
// As there, the log goes to standard error, and SIGHUP makes a snapshot.
#include <algorithm>
#include <cstdio>

#include "apps/poseidon/command.h"
#include "base/text.h"
#include "engines/caffe/tools/old_flags.h"

namespace poseidon::app {
namespace {

void print_help() {
  std::fputs(
      "caffe: Caffe's command lines, run by Poseidon\n"
      "\n"
      "Usage: caffe ACTION [FLAGS]\n"
      "\n"
      "  train         train a net (poseidon train)\n"
      "  test          score a trained net (poseidon test)\n"
      "  time          measure each layer (poseidon time)\n"
      "  device_query  what this host has to compute with (poseidon devices)\n"
      "\n"
      "Flags of an action are Caffe's, and all of the subcommand of poseidon: `caffe train --help` shows them.\n"
      "\n"
      "Examples:\n"
      "  caffe train --solver=examples/digits/lenet_solver.prototxt --workers=4\n"
      "  caffe test -model examples/digits/lenet_train_test.prototxt \\\n"
      "      -weights examples/digits/snapshots/lenet_iter_600.caffemodel -iterations 8\n",
      stdout);
}

bool gives(const std::vector<std::string>& arguments, std::string_view flag) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& word) {
    return word == flag || (word.starts_with(flag) && word.size() > flag.size() && word[flag.size()] == '=');
  });
}

// Caffe lets flags stand before the action; with a value of their own they are --name=value there.
std::vector<std::string>::const_iterator action_in(const std::vector<std::string>& arguments) {
  return std::find_if(arguments.begin(), arguments.end(), [](const std::string& word) { return !word.starts_with("-"); });
}

// All but the action, with dashes as they are today.
std::vector<std::string> flags_of(const std::vector<std::string>& arguments) {
  const auto action = action_in(arguments);
  std::vector<std::string> flags(arguments.begin(), action);
  flags.insert(flags.end(), action + 1, arguments.end());
  return caffe::modern_spelling(flags);
}

}  // namespace

std::optional<std::vector<std::string>> caffe_training(const std::vector<std::string>& arguments) {
  const auto action = action_in(arguments);
  if (action == arguments.end() || *action != "train") return std::nullopt;
  std::vector<std::string> flags = flags_of(arguments);
  if (!gives(flags, "--sighup-effect")) flags.emplace_back("--sighup-effect=snapshot");
  if (!gives(flags, "--log-format")) flags.emplace_back("--log-format=caffe");
  return flags;
}

int caffe_command(const std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front() == "--help" || arguments.front() == "-help" || arguments.front() == "-h") {
    print_help();
    return arguments.empty() ? kWrongUsage : kSuccess;
  }
  const auto action = action_in(arguments);
  if (action == arguments.end()) {
    std::fputs("caffe: which action? train, test, time or device_query\n", stderr);
    return kWrongUsage;
  }
  if (const std::optional<std::vector<std::string>> training = caffe_training(arguments)) return train_command(*training);
  const std::vector<std::string> flags = flags_of(arguments);
  if (*action == "test") return test_command(flags);
  if (*action == "time") return time_command(flags);
  if (*action == "device_query") return devices_command(flags);
  const std::vector<std::string> actions = {"train", "test", "time", "device_query"};
  std::fprintf(stderr, "caffe: there is no action \"%s\"%s (%s)\n", action->c_str(), base::did_you_mean(*action, actions).c_str(),
               base::join_words(actions).c_str());
  return kWrongUsage;
}

}  // namespace poseidon::app

// `poseidon upgrade-net` and `poseidon upgrade-solver`: rewrite files of older forms in the present one.
#include <cstdio>
#include <filesystem>

#include "apps/poseidon/command.h"
#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/proto/upgrade_file.h"

namespace poseidon::app {
namespace {

struct UpgradeOptions {
  std::string from;
  std::string to;
};

void add_files(CLI::App& app, UpgradeOptions& into) {
  app.add_option("OLD", into.from, "the file to read")->required();
  app.add_option("NEW", into.to, "the file to write; may be the same")->required();
}

int write(const caffe::proto::UpgradedFile& upgraded, const UpgradeOptions& options) {
  if (const Status written = base::write_file_atomically(options.to, std::string_view(upgraded.bytes)); !written) {
    throw caffe::SystemError(written.error().message);
  }
  const std::string what = upgraded.old_forms.empty() ? "is of the present form already, and was copied"
                                                      : "had " + base::join_words(upgraded.old_forms) + ", upgraded";
  std::printf("%s %s to %s\n", options.from.c_str(), what.c_str(), options.to.c_str());
  return kSuccess;
}

}  // namespace

int upgrade_net_command(const std::vector<std::string>& arguments) {
  UpgradeOptions options;
  CLI::App app;
  app.name("poseidon upgrade-net");
  app.description("Rewrites a net of one of Caffe's older forms in the present one: a prototxt as a prototxt, without its\n"
                  "comments, and a .caffemodel as a .caffemodel. `poseidon train` reads older forms as they are.");
  app.footer("Examples:\n"
             "  poseidon upgrade-net examples/digits/lenet_train_test.prototxt upgraded.prototxt");
  add_files(app, options);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  return write(caffe::proto::upgrade_net_file(options.from), options);
}

int upgrade_solver_command(const std::vector<std::string>& arguments) {
  UpgradeOptions options;
  CLI::App app;
  app.name("poseidon upgrade-solver");
  app.description("Rewrites a solver's prototxt of Caffe's older form (`solver_type: ADAM`) in the present one, without its\n"
                  "comments. `poseidon train` reads the older form as it is.");
  app.footer("Examples:\n"
             "  poseidon upgrade-solver examples/digits/lenet_solver.prototxt upgraded_solver.prototxt");
  add_files(app, options);
  if (const std::optional<int> code = parse(app, arguments)) return *code;
  return write(caffe::proto::upgrade_solver_file(options.from), options);
}

}  // namespace poseidon::app

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/tool.h"
#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/tools/draw_net.h"

extern char** environ;

namespace poseidon::data {
namespace {

using base::concat;
namespace fs = std::filesystem;

constexpr std::array<std::string_view, 1> kSwitches = {"display-lrm"};

constexpr const char* kDescription =
    "Draws a net: Caffe's draw_net.py.\n"
    "\n"
    "OUTPUT.dot is text in the language of Graphviz. OUTPUT.png, .svg, .pdf and whatever else Graphviz makes are drawn by its\n"
    "program dot, if that is installed.";

constexpr const char* kExamples =
    "Examples:\n"
    "  poseidon draw-net examples/digits/lenet_train_test.prototxt lenet.dot\n"
    "  poseidon draw-net --phase TEST --rankdir TB --display-lrm examples/digits/lenet_train_test.prototxt lenet_test.dot";

// A file that is removed in the end, unless it has been renamed.
struct TemporaryFile {
  fs::path path;
  ~TemporaryFile() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

void write_text(const fs::path& file, const std::string& text) {
  const Status written = base::write_file_atomically(file, std::string_view(text));
  if (!written) throw caffe::SystemError(written.error().message);
}

// Runs Graphviz's dot, whose messages go to our standard error.
void run_dot(const std::string& format, const fs::path& graph, const fs::path& picture) {
  std::array<std::string, 5> words = {"dot", "-T" + format, "-o", picture.string(), graph.string()};
  std::array<char*, 6> raw{};
  std::transform(words.begin(), words.end(), raw.begin(), [](std::string& word) { return word.data(); });
  pid_t child = -1;
  if (const int code = ::posix_spawnp(&child, "dot", nullptr, nullptr, raw.data(), environ); code != 0) {
    throw caffe::SystemError(concat("cannot run Graphviz's program dot, which makes .", format, " files: ", std::strerror(code),
                                    "; install Graphviz, or write a .dot file"));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw caffe::ConfigError(concat("Graphviz's program dot made no .", format, " file"));
  }
}

// The picture gets its name when it is complete.
void draw_picture(const std::string& dot, const std::string& format, const fs::path& output) {
  const std::string hidden = concat(".", output.filename().string(), ".partial-", ::getpid());
  const TemporaryFile graph{output.parent_path() / (hidden + ".dot")};
  const TemporaryFile picture{output.parent_path() / hidden};
  write_text(graph.path, dot);
  run_dot(format, graph.path, picture.path);
  std::error_code failure;
  fs::rename(picture.path, output, failure);
  if (failure) throw caffe::SystemError(concat("cannot write ", output.string(), ": ", failure.message()));
}

void draw_net(const fs::path& model, const fs::path& output, const caffe::DrawNetOptions& options) {
  std::string format = output.extension().string();
  if (format.size() < 2) {
    throw caffe::ConfigError(concat(output.string(), ": has no extension that says what kind of picture it is; .dot, .png, .svg"));
  }
  format.erase(0, 1);
  std::transform(format.begin(), format.end(), format.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::string dot = caffe::net_as_dot(caffe::proto::read_text(model, "NetParameter"), options);
  if (format == "dot" || format == "gv") {
    write_text(output, dot);
  } else {
    draw_picture(dot, format, output);
  }
  std::printf("%s: %s\n", model.c_str(), output.c_str());
}

}  // namespace

int draw_net_command(const std::vector<std::string>& arguments) {
  fs::path model;
  fs::path output;
  std::string phase = "ALL";
  caffe::DrawNetOptions options;
  CLI::App app;
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("MODEL", model, "the net's prototxt")->required();
  app.add_option("OUTPUT", output, "the picture, whose extension says its kind")->required();
  app.add_option("--rankdir", options.direction, "where the data flow: LR (to the right), RL, TB (down) or BT")
      ->check(CLI::IsMember({"LR", "RL", "TB", "BT"}))
      ->capture_default_str();
  app.add_option("--phase", phase, "the layers of this phase: TRAIN, TEST or ALL")
      ->check(CLI::IsMember({"TRAIN", "TEST", "ALL"}))
      ->capture_default_str();
  app.add_flag("--display-lrm", options.learning_rates, "write each layer's factors on the learning rate");
  return run_tool({"poseidon draw-net", kSwitches}, app, arguments, [&] {
    if (phase != "ALL") options.phase = phase;
    draw_net(model, output, options);
  });
}

}  // namespace poseidon::data

#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/usage.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"
#include "engines/caffe/tools/convert_images.h"
#include "engines/caffe/tools/old_flags.h"

namespace poseidon::data {
namespace {

using namespace poseidon::caffe;
using base::concat;
using Clock = std::chrono::steady_clock;

constexpr std::array<std::string_view, 6> kSwitches = {"gray",    "shuffle",         "check-size",
                                                       "encoded", "skip-unreadable", "overwrite"};

constexpr const char* kDescription =
    "Makes a data base (LMDB) from image files: Caffe's convert_imageset.\n"
    "\n"
    "LISTFILE has a line for each image: its path below ROOTFOLDER, a blank, its label (a whole number).\n"
    "DB_NAME is the folder that is made. Caffe's spelling of flags works as well: -resize_height 28, --gray=true.";

constexpr const char* kExamples =
    "Examples, with the images that examples/digits/create_lmdb.sh writes:\n"
    "  poseidon convert-images --gray --resize-width 28 --resize-height 28 \\\n"
    "      examples/digits/images examples/digits/images/train.txt train_lmdb\n"
    "  poseidon convert-images --shuffle --seed 7 --resize-width 56 --resize-height 56 \\\n"
    "      examples/digits/images examples/digits/images/train.txt shuffled_lmdb\n"
    "  poseidon convert-images --check-size examples/digits/images examples/digits/images/test.txt checked_lmdb\n"
    "  poseidon convert-images --encode-type png examples/digits/images examples/digits/images/test.txt png_lmdb";

// Set by Ctrl-C; looked at between batches.
std::atomic<bool> stop_wanted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may set it");

void stop_on(int signal_number) {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_wanted = true; };
  ::sigaction(signal_number, &action, nullptr);
}

void describe(CLI::App& app, ConvertImagesOptions& into, std::string& backend) {
  app.name("poseidon convert-images");
  app.description(kDescription);
  app.footer(kExamples);
  app.add_option("ROOTFOLDER", into.root, "where the paths of the list begin")->required();
  app.add_option("LISTFILE", into.list, "a path and a label in each line")->required();
  app.add_option("DB_NAME", into.database, "the data base to make")->required();
  app.add_flag("--gray", into.gray, "one channel instead of three");
  app.add_flag("--shuffle", into.shuffle, "put the records in random order");
  app.add_option("--seed", into.seed, "of the shuffle")->capture_default_str();
  app.add_option("--resize-width", into.resize_width, "bring all images to this width ...")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--resize-height", into.resize_height, "... and this height (bilinear)")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--check-size", into.check_size, "refuse images of different sizes (pixels only: not with --encoded or --encode-type)");
  app.add_flag("--encoded", into.encoded, "keep the image files as they are instead of their pixels");
  app.add_option("--encode-type", into.encode_type, "keep them as files of this kind: png, jpg, ...");
  app.add_option("--backend", backend, "the kind of data base")->check(CLI::IsMember({"lmdb"}))->capture_default_str();
  app.add_flag("--skip-unreadable", into.skip_unreadable, "pass over images that cannot be read");
  app.add_flag("--overwrite", into.overwrite, "replace a data base of this name");
  app.add_option("--threads", into.threads, "that read and decode; 0 for one on each core")->capture_default_str();
}

// A line now and then while it takes long.
class ProgressLine {
 public:
  void show(ConvertProgress progress) {
    const Clock::time_point now = Clock::now();
    if (now - shown_ < std::chrono::seconds(2) || progress.done == progress.total) return;
    shown_ = now;
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    const double rate = static_cast<double>(progress.done) / seconds;
    std::fprintf(stderr, "%zu of %zu images, %.0f images/s, %.0f s left\n", progress.done, progress.total, rate,
                 static_cast<double>(progress.total - progress.done) / rate);
  }
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

 private:
  Clock::time_point begin_ = Clock::now();
  Clock::time_point shown_ = begin_;
};

int convert(const ConvertImagesOptions& options) {
  stop_on(SIGINT);
  stop_on(SIGTERM);
  ::signal(SIGXFSZ, SIG_IGN);  // a file that grows over the user's limit is an error to report, not a reason to die
  ProgressLine progress;
  const auto report = convert_images(
      options, [&](ConvertProgress now) { progress.show(now); },
      [](const std::string& what) { std::fprintf(stderr, "warning: %s\n", what.c_str()); }, stop_wanted);
  if (!report) {
    std::fputs("poseidon convert-images: interrupted; nothing was written\n", stderr);
    return kInterrupted;
  }
  const std::string skipped = report->skipped == 0 ? "" : concat(", ", report->skipped, " unreadable ones passed over");
  std::printf("%s: %zu images %s with %zu labels%s, in %s\n", options.database.c_str(), report->written,
              report->extents.c_str(), report->labels, skipped.c_str(),
              base::readable_seconds(progress.seconds()).c_str());
  return kSuccess;
}

}  // namespace

int convert_images_command(const std::vector<std::string>& arguments) {
  ConvertImagesOptions options;
  std::string backend = "lmdb";
  CLI::App app;
  describe(app, options, backend);
  const std::vector<std::string> modern = modern_spelling(arguments, kSwitches);
  try {
    app.parse(std::vector<std::string>(modern.rbegin(), modern.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ParseError& error) {
    return report(app, error);
  }
  try {
    return convert(options);
  } catch (const ConfigError& error) {
    std::fprintf(stderr, "poseidon convert-images: %s\n", error.what());
    return kWrongInput;
  } catch (const SystemError& error) {
    std::fprintf(stderr, "poseidon convert-images: %s\n", error.what());
    return kSystem;
  }
}

}  // namespace poseidon::data

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <string>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/tool.h"
#include "base/text.h"
#include "engines/caffe/tools/convert_images.h"

namespace poseidon::data {
namespace {

using namespace poseidon::caffe;
using base::concat;

constexpr std::array<std::string_view, 6> kSwitches = {"gray",    "shuffle",         "check-size",
                                                       "encoded", "skip-unreadable", "overwrite"};

constexpr const char* kDescription =
    "Makes a data base from image files: Caffe's convert_imageset.\n"
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

void describe(CLI::App& app, ConvertImagesOptions& into) {
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
  add_backend(app, into.backend);
  app.add_flag("--skip-unreadable", into.skip_unreadable, "pass over images that cannot be read");
  add_overwrite(app, into.overwrite);
  app.add_option("--threads", into.threads, "that read and decode; 0 for one on each core")->capture_default_str();
}

void convert(const ConvertImagesOptions& options) {
  ProgressLine progress("images");
  const ConvertImagesReport report =
      convert_images(options, progress.function(),
                     [](const std::string& what) { std::fprintf(stderr, "warning: %s\n", what.c_str()); });
  const std::string skipped = report.skipped == 0 ? "" : concat(", ", report.skipped, " unreadable ones passed over");
  std::printf("%s: %zu images %s with %zu labels%s, in %s\n", options.database.c_str(), report.written,
              report.extents.c_str(), report.labels, skipped.c_str(), progress.time().c_str());
}

}  // namespace

int convert_images_command(const std::vector<std::string>& arguments) {
  ConvertImagesOptions options;
  CLI::App app;
  describe(app, options);
  return run_tool({"poseidon convert-images", kSwitches}, app, arguments, [&] { convert(options); });
}

}  // namespace poseidon::data

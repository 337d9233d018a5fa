#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>

#include "apps/poseidon-data/commands.h"
#include "apps/poseidon-data/usage.h"
#include "engines/caffe/data/hdf5_server.h"
#include "engines/caffe/data/image_server.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/data/record_server.h"
#include "engines/caffe/data/window_server.h"

namespace poseidon::data {
namespace {

using namespace poseidon::caffe;

// How `poseidon train --data-threads` reaches the readers of all its workers.
constexpr const char* kThreadsVariable = "POSEIDON_DATA_THREADS";

struct Arguments {
  ServeOptions serve{.threads = 0};
  ServeImagesOptions images;    // where `--images` is given
  ServeWindowsOptions windows;  // where `--windows` is
  ServeHdf5Options hdf5;        // where `--hdf5` is
  // Flags of several sources.
  std::string prefix;
  std::string purpose;
  std::uint64_t seed = 1;
  bool shuffle = false;
  bool in_double = false;
  std::string backend;  // empty: any
  std::string color = "as-stored";
  int parent = 0;  // 0: unknown
};

void describe(CLI::App& app, Arguments& into) {
  app.description(
      "Writes records of a data base, or images, windows or HDF5 rows of a list, into standard output, which must be a pipe, for a trainer of "
      "Poseidon.");
  CLI::Option_group* const source = app.add_option_group("source");
  source->require_option(1);
  source->add_option("--database", into.serve.database, "the folder of the data base");
  source->add_option("--images", into.images.list, "a list of image files, a path and a label in each line");
  source->add_option("--windows", into.windows.list, "a window file");
  source->add_option("--hdf5", into.hdf5.list, "a list of HDF5 files");
  app.add_option("--backend", into.backend, "what kind of data base it must be")
      ->check(CLI::IsMember({"lmdb", "leveldb"}));
  app.add_option("--first", into.serve.first,
                 "global index of the first record; record i is i modulo the number of records");
  app.add_option("--take", into.serve.take, "send so many records")->check(CLI::PositiveNumber);
  app.add_option("--skip", into.serve.skip, "then pass over so many, and so on");
  app.add_option("--go-on-at", into.serve.go_on_at, "global index where another reader stopped");
  app.add_option("--color", into.color, "what encoded images are decoded to")
      ->check(CLI::IsMember({"as-stored", "color", "gray"}));
  app.add_flag("--leave-jpegs", into.serve.leaves_jpegs, "send JPEGs of a data base as they are stored, where the trainer can decode them");
  app.add_flag("--verbatim", into.serve.verbatim, "send records of a data base as they are stored, whatever they are");
  app.add_option("--prefix", into.prefix, "of the images' paths");
  app.add_option("--width", into.images.files.width, "bring all images to this width ...")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--height", into.images.files.height, "... and this height; 0 for both keeps their sizes")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--shuffle", into.shuffle, "each pass in another random order");
  app.add_option("--seed", into.seed, "of the order, or of draws");
  app.add_option("--purpose", into.purpose, "a name for the order: others have others of the same seed");
  app.add_flag("--double", into.in_double, "numbers as double, not as float");
  app.add_option("--dataset", into.hdf5.rows.datasets, "of each HDF5 file, one flag for each");
  app.add_option("--side", into.windows.files.crop.side, "of the square that a window becomes");
  app.add_option("--context-pad", into.windows.files.crop.context_pad, "pixels around the window in it");
  app.add_flag("--square", into.windows.files.crop.square, "the least square around each window");
  app.add_flag("--mirror", into.windows.files.mirror, "half of the windows");
  app.add_flag("--cache", into.windows.files.cache, "keep the images of windows in memory");
  app.add_option("--fg-threshold", into.windows.files.foreground_threshold, "the least overlap with an object");
  app.add_option("--bg-threshold", into.windows.files.background_threshold, "background is below this overlap");
  app.add_option("--fg-fraction", into.windows.files.foreground_share, "the share of objects in a batch");
  app.add_option("--threads", into.serve.threads, "that decode image files; 0 for one on each core")
      ->envname(kThreadsVariable);
  app.add_option("--parent", into.parent, "the process of the trainer: end when it has ended");
}

ImageColor color_called(const std::string& name) {
  for (const ImageColor color : {ImageColor::kColor, ImageColor::kGray}) {
    if (to_string(color) == name) return color;
  }
  return ImageColor::kAsStored;
}

template <typename Options>
void set_range(const Arguments& given, Options& options) {
  options.first = given.serve.first;
  options.take = given.serve.take;
  options.skip = given.serve.skip;
}

ServeImagesOptions images_of(const Arguments& given) {
  ServeImagesOptions options = given.images;
  options.color = color_called(given.color);
  options.files.prefix = given.prefix;
  options.files.shuffle = given.shuffle;
  options.files.seed = given.seed;
  options.files.purpose = given.purpose;
  options.threads = given.serve.threads;
  set_range(given, options);
  return options;
}

ServeWindowsOptions windows_of(const Arguments& given) {
  ServeWindowsOptions options = given.windows;
  options.files.prefix = given.prefix;
  options.files.seed = given.seed;
  options.files.purpose = given.purpose;
  options.files.crop.in_double = given.in_double;
  options.threads = given.serve.threads;
  set_range(given, options);
  return options;
}

ServeHdf5Options hdf5_of(const Arguments& given) {
  ServeHdf5Options options = given.hdf5;
  options.rows.in_double = given.in_double;
  options.rows.shuffle = given.shuffle;
  options.rows.seed = given.seed;
  options.rows.purpose = given.purpose;
  set_range(given, options);
  return options;
}

// Other libraries of the trainer may have left descriptors open that are not meant for us: a listening socket that we
// hold keeps its port taken.
void close_inherited_descriptors() {
  std::vector<int> open;
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", failure)) {
    const int fd = std::atoi(entry.path().filename().c_str());
    if (fd > STDERR_FILENO) open.push_back(fd);
  }
  for (const int fd : open) ::close(fd);
}

// Ends this process when nobody reads the pipe any more, also while it is busy in the data base or waits for a disk.
//
// Why not PR_SET_PDEATHSIG: it fires when the *thread* that started us ends, and a trainer may well start readers from
// threads that do not stay. The pipe closes when the trainer's process is gone, whatever the manner of its death;
// should another process have inherited its end, the changed parent tells.
[[noreturn]] void watch_trainer(int parent) {
  for (;;) {
    pollfd pipe{STDOUT_FILENO, 0, 0};
    const int ready = ::poll(&pipe, 1, 1000);
    if (ready > 0 && (pipe.revents & (POLLERR | POLLNVAL)) != 0) ::_exit(kSuccess);
    if (parent > 0 && ::getppid() != parent) ::_exit(kSuccess);
  }
}

}  // namespace

int read_command(const std::vector<std::string>& arguments, const ImageHandling& handling) {
  Arguments given;
  CLI::App app;
  describe(app, given);
  app.name("poseidon-data read");
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 takes them from the back
  } catch (const CLI::ParseError& error) {
    return report(app, error);
  }
  struct stat output {};
  if (::fstat(STDOUT_FILENO, &output) != 0 || !S_ISFIFO(output.st_mode)) {
    std::fputs("poseidon-data read: standard output must be a pipe; a trainer reads it\n", stderr);
    return kWrongUsage;
  }
  close_inherited_descriptors();
  ::signal(SIGPIPE, SIG_IGN);  // a closed pipe is how we are told to end
  const rlimit no_core{0, 0};  // dying of a damaged data base is what we are for
  ::setrlimit(RLIMIT_CORE, &no_core);
  std::thread(watch_trainer, given.parent).detach();

  given.serve.backend = backend_called(given.backend);
  if (given.serve.threads == 0) given.serve.threads = std::max(1U, std::thread::hardware_concurrency());
  if (!handling.decodes_here) given.serve.threads = 1;
  try {
    if (!given.images.list.empty()) {
      handling.serve_images(images_of(given), arguments);
    } else if (!given.windows.list.empty()) {
      handling.serve_windows(windows_of(given), arguments);
    } else if (!given.hdf5.list.empty()) {
      handling.serve_hdf5(hdf5_of(given));
    } else {
      serve_records(given.serve, handling.make_decode(color_called(given.color), arguments), STDOUT_FILENO);
    }
  } catch (const std::exception& error) {
    write_frame(STDOUT_FILENO, FrameKind::kError, 0, "", error.what());
    return kWrongInput;
  }
  return kSuccess;
}

}  // namespace poseidon::data

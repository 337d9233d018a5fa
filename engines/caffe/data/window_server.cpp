#include "engines/caffe/data/window_server.h"

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/file.h"
#include "base/philox.h"
#include "base/text.h"
#include "engines/caffe/data/image_file.h"
#include "engines/caffe/data/ordered_pool.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/data/window_crop.h"
#include "engines/caffe/data/window_list.h"
#include "engines/caffe/data/window_record.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// Larger files are no photographs but mistakes.
constexpr std::size_t kFileBytesMax = std::size_t{1} << 30;

struct Task {
  std::uint64_t index = 0;  // global
  const Window* window = nullptr;
  bool mirrored = false;
};

struct Warped {
  Task task;
  std::string bytes;  // of a WindowRecord
};

// The images' files, which stay in memory where that is wanted. For many threads.
class Files {
 public:
  Files(const WindowList& list, const WindowFiles& options) : list_(list), options_(options) {}

  std::shared_ptr<const std::string> read(std::uint32_t image) {
    if (options_.cache) {
      const std::lock_guard lock(mutex_);
      if (const auto kept = kept_.find(image); kept != kept_.end()) return kept->second;
    }
    Result<std::string> bytes = base::read_file(options_.prefix + list_.images[image], kFileBytesMax);
    if (!bytes) throw ConfigError(bytes.error().message);
    auto file = std::make_shared<const std::string>(std::move(bytes).value());
    if (options_.cache) {
      const std::lock_guard lock(mutex_);
      kept_.emplace(image, file);
    }
    return file;
  }

 private:
  const WindowList& list_;
  const WindowFiles& options_;
  std::mutex mutex_;  // guards kept_
  std::unordered_map<std::uint32_t, std::shared_ptr<const std::string>> kept_;
};

// Which window each record is. The draw depends on its number alone, so it is the same whichever worker has it.
class Draws {
 public:
  Draws(const WindowList& list, const ServeWindowsOptions& options)
      : list_(list),
        mirror_(options.files.mirror),
        batch_(options.take + options.skip),
        foreground_(static_cast<std::uint64_t>(static_cast<float>(batch_) * options.files.foreground_share)),
        random_(options.files.seed, options.files.purpose) {
    if (foreground_ > 0 && list.foreground.empty()) {
      throw ConfigError(concat(options.list.string(), ": has no window with an overlap from fg_threshold (",
                               options.files.foreground_threshold, ") on, and fg_fraction asks for ", foreground_,
                               " in a batch of ", batch_));
    }
    if (foreground_ < batch_ && list.background.empty()) {
      throw ConfigError(concat(options.list.string(), ": has no window with an overlap below bg_threshold (",
                               options.files.background_threshold, "), and fg_fraction leaves ", batch_ - foreground_,
                               " to them in a batch of ", batch_));
    }
  }

  Task task(std::uint64_t index) const {
    const bool foreground = index % batch_ >= batch_ - foreground_;
    const std::vector<Window>& windows = foreground ? list_.foreground : list_.background;
    const base::PhiloxCounter words = random_.words(0, index, 0);
    const std::uint64_t wide = (std::uint64_t{words[0]} << 32) | words[1];
    return {index, &windows[wide % windows.size()], mirror_ && words[2] % 2 == 1};
  }

 private:
  const WindowList& list_;
  const bool mirror_;
  const std::uint64_t batch_;       // records of the global batch
  const std::uint64_t foreground_;  // of them
  const base::RandomStream random_;
};

Warped warp(const Task& task, const WindowList& list, const ServeWindowsOptions& options, Files& files) {
  try {
    const std::shared_ptr<const std::string> file = files.read(task.window->image);
    const WindowRecord record =
        cut_window(*file, *task.window, options.files.crop, task.mirrored, list.images[task.window->image]);
    return {task, window_bytes(record)};
  } catch (const ConfigError& error) {
    throw ConfigError(concat(options.list.string(), ":", task.window->line, ": ", error.what()));
  }
}

}  // namespace

void serve_windows(const ServeWindowsOptions& options, int pipe) {
  const WindowList list =
      read_window_list(options.list, {options.files.foreground_threshold, options.files.background_threshold});
  const Draws draws(list, options);
  Files files(list, options.files);
  if (!write_frame(pipe, FrameKind::kHello, 0, kHelloKey, "")) return;

  std::uint64_t taken = 0;
  const auto take = [&] {
    const std::uint64_t index =
        options.first + taken / options.take * (options.take + options.skip) + taken % options.take;
    ++taken;
    return draws.task(index);
  };
  OrderedPool<Task, Warped> pool({options.threads, kAheadPerThread * options.threads}, take,
                                 [&](const Task& task) { return warp(task, list, options, files); });
  for (;;) {
    const Warped warped = pool.next();
    const std::string_view key = std::string_view(list.images[warped.task.window->image]).substr(0, kKeyBytesMax);
    if (!write_frame(pipe, FrameKind::kRecord, warped.task.index, key, warped.bytes)) return;
  }
}

}  // namespace poseidon::caffe

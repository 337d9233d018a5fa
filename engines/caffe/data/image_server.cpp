#include "engines/caffe/data/image_server.h"

#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/text.h"
#include "engines/caffe/data/image_file.h"
#include "engines/caffe/data/image_list.h"
#include "engines/caffe/data/ordered_pool.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

using base::concat;

// Which image each global index is. Every pass has an order of its own, drawn for its number: so it is the same on all
// workers, and a job that goes on from a snapshot need not draw the passes before.
class PassOrder {
 public:
  PassOrder(std::size_t images, const ImageFiles& files)
      : shuffled_(files.shuffle), random_(files.seed, files.purpose) {
    if (images > std::numeric_limits<std::uint32_t>::max()) throw ConfigError("a list of more than 2^32 images");
    order_.resize(images);
  }
  std::size_t image_at(std::uint64_t index) {
    const std::uint64_t pass = index / order_.size();
    const std::size_t place = index % order_.size();
    if (!shuffled_) return place;
    if (pass_ != pass) {
      std::iota(order_.begin(), order_.end(), 0U);
      shuffle(std::span(order_), random_, pass);
      pass_ = pass;
    }
    return order_[place];
  }

 private:
  bool shuffled_;
  base::RandomStream random_;
  std::optional<std::uint64_t> pass_;  // whose order order_ is
  std::vector<std::uint32_t> order_;
};

struct Task {
  std::uint64_t index = 0;  // global
  const ListedImage* image = nullptr;
};

struct Decoded {
  Task task;
  std::string datum;  // its bytes
};

Decoded decode(const ServeImagesOptions& options, const Task& task) {
  const ImageOptions how{options.color == ImageColor::kGray, {options.files.width, options.files.height}, ""};
  try {
    Decoded decoded{task,
                    proto::datum_bytes(read_image(options.files.prefix + task.image->path, how, task.image->label))};
    if (decoded.datum.size() > kValueBytesMax) {
      throw ConfigError(concat(task.image->path, ": is larger than ", base::readable_bytes(kValueBytesMax)));
    }
    return decoded;
  } catch (const ConfigError& error) {
    throw ConfigError(concat(options.list.string(), ":", task.image->line, ": ", error.what()));
  }
}

}  // namespace

void serve_images(const ServeImagesOptions& options, int pipe) {
  const std::vector<ListedImage> images = read_image_list(options.list);
  PassOrder order(images.size(), options.files);
  if (!write_frame(pipe, FrameKind::kHello, images.size(), kHelloKey, "")) return;

  std::uint64_t taken = 0;
  const auto take = [&] {
    const std::uint64_t index =
        options.first + taken / options.take * (options.take + options.skip) + taken % options.take;
    ++taken;
    return Task{index, &images[order.image_at(index)]};
  };
  OrderedPool<Task, Decoded> pool({options.threads, kAheadPerThread * options.threads}, take,
                                  [&](const Task& task) { return decode(options, task); });
  for (;;) {
    const Decoded decoded = pool.next();
    const std::string_view key = std::string_view(decoded.task.image->path).substr(0, kKeyBytesMax);
    if (!write_frame(pipe, FrameKind::kRecord, decoded.task.index, key, decoded.datum)) return;
  }
}

}  // namespace poseidon::caffe

// ImageData: images and labels from image files that a list names, a path and a label in each line.
//
// With `shuffle` every pass through the list has another random order, the same on all workers; Caffe shuffles the list
// again after each pass. `root_folder` is put before each path as it is, as Caffe does: it ends with a slash.
#include "engines/caffe/layers/record_layer.h"
#include "engines/caffe/layers/standard_layers.h"

namespace poseidon::caffe {
namespace {

class ImageData final : public RecordLayer {
 public:
  explicit ImageData(const LayerConfig& config) : RecordLayer(config, "image_data_param") {
    const std::string source = settings().text("source");
    if (source.empty()) {
      fail_at(settings().position("source"), "needs a list of image files: image_data_param { source: \"FILE\" }");
    }
    const std::int64_t height = extent("new_height");
    const std::int64_t width = extent("new_width");
    if ((height > 0) != (width > 0)) {
      fail_at(settings().position(height > 0 ? "new_height" : "new_width"),
              "needs new_height and new_width together, or none of them to keep the images' sizes");
    }
    open({.source = source,
          .images = ImageFiles{.prefix = settings().text("root_folder"),
                               .width = static_cast<int>(width),
                               .height = static_cast<int>(height),
                               .shuffle = settings().flag("shuffle"),
                               .seed = seed(),
                               .purpose = name() + ".shuffle"},
          .color = settings().flag("is_color") ? ImageColor::kColor : ImageColor::kGray,
          .program = {}});
  }

 private:
  // The reader bounds an image's bytes; this only keeps the numbers in the range of an int.
  std::int64_t extent(std::string_view field) const {
    constexpr std::int64_t kExtentMax = 65'500;  // JPEG's own limit
    const std::int64_t value = settings().integer(field);
    if (value > kExtentMax) fail_at(settings().position(field), "wants images of more than 65500 rows or columns");
    return value;
  }
};

}  // namespace

std::unique_ptr<Layer> make_image_data(const LayerConfig& config) {
  return std::make_unique<ImageData>(config);
}

}  // namespace poseidon::caffe

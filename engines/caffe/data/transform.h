// What happens to an image between the data base and a blob: Caffe's transform_param.
//
// A pixel is cut out and perhaps mirrored, has its mean subtracted, and is multiplied by the scale. What is random (the
// place of the cut in training, and mirroring) is drawn for (seed, layer, iteration, global record index), so it does
// not depend on which worker handles the record.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/philox.h"
#include "engines/caffe/data/jpeg.h"
#include "engines/caffe/data/record_reader.h"
#include "engines/caffe/proto/datum.h"
#include "engines/caffe/proto/message.h"

namespace poseidon::caffe {

class Transform {
 public:
  struct Options {
    bool training = true;  // the cut is anywhere; in testing it is the middle. Mirroring is random in both, as in Caffe
    std::uint64_t seed = 0;
    std::string layer;  // its name
    // The layer's own settings, data_param or image_data_param. Older prototxts have scale, mirror, crop_size and
    // mean_file there, and they hold where transform_param does not have them.
    std::optional<proto::Message> older = std::nullopt;
  };
  // `settings` is a TransformationParameter. Reads the mean file. Throws ConfigError where settings contradict each
  // other.
  Transform(const proto::Message& settings, Options options);

  // What encoded images must be decoded to: for RecordReaderOptions.
  ImageColor color() const { return color_; }

  // [C, H, W] of what comes out for an image of these extents. Throws ConfigError where it is smaller than the cut, or
  // fits neither mean file nor mean values; `where` says which record it is.
  std::vector<std::int64_t> shape_for(const std::vector<std::int64_t>& image, std::string_view where) const;
  // The same for a record, which holds plain numbers or a JPEG that JpegDecoder can open. Throws ConfigError where it is another.
  std::vector<std::int64_t> shape_for(const proto::Datum& datum, std::string_view where) const;

  // Fills `out`, [C, H, W] of shape_for(), from such a record. Arithmetic is in the type of `out`. May be called by several threads
  // at once. Throws ConfigError, without saying which record it is, where a JPEG is damaged so that nothing can be read.
  void apply(const proto::Datum& datum, std::uint64_t iteration, std::uint64_t record, std::span<float> out) const;
  void apply(const proto::Datum& datum, std::uint64_t iteration, std::uint64_t record, std::span<double> out) const;

 private:
  // Which part of the image, and which way round.
  struct Window {
    std::size_t top = 0;
    std::size_t left = 0;
    std::size_t height = 0;
    std::size_t width = 0;
    bool mirrored = false;
  };
  Window window_for(std::int64_t height, std::int64_t width, std::uint64_t iteration, std::uint64_t record) const;
  // [C, H, W] of what a JPEG is decoded to.
  std::vector<std::int64_t> extents_of(const JpegHeader& header) const;
  template <typename T>
  void apply_as(const proto::Datum& datum, std::uint64_t iteration, std::uint64_t record, std::span<T> out) const;
  template <typename T>
  void apply_plain(const proto::Datum& datum, const Window& window, std::span<T> out) const;
  template <typename T>
  void apply_jpeg(JpegDecoder& decoder, const std::vector<std::int64_t>& image, const Window& window, std::span<T> out) const;
  // One row of what comes out; `row` counts from the window's first. `from` is the place of its first pixel in an array [C, H, W],
  // `source` where its numbers are.
  template <typename T, typename Source>
  void write_row(const Window& window, std::size_t channel, std::size_t row, std::size_t from, const Source& source,
                 std::span<T> out) const;

  Options options_;
  base::RandomStream random_;
  ImageColor color_ = ImageColor::kAsStored;
  double scale_ = 1;
  bool mirror_ = false;
  std::size_t crop_ = 0;  // 0: no cut
  std::string mean_file_;
  std::vector<std::int64_t> mean_shape_;  // [C, H, W] of the mean image; empty when there is none
  std::vector<double> mean_image_;
  std::vector<double> mean_values_;  // none, one, or one per channel
};

}  // namespace poseidon::caffe

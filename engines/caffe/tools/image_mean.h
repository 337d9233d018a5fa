// The mean of all images of a data base, for `mean_file`: Caffe's compute_image_mean.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <vector>

#include "engines/caffe/data/backend.h"
#include "engines/caffe/proto/blob.h"
#include "engines/caffe/tools/progress.h"

namespace poseidon::caffe {

struct ImageMean {
  proto::Blob image;             // [1, channels, height, width] in float
  std::vector<double> channels;  // the mean of each one's pixels
  std::size_t records = 0;
};

// Sums in double, so the result is exact to a float whatever the number of records; Caffe sums in float, which begins
// to lose digits after 65,793 white images. Encoded images are decoded as they are stored. The data base is read by a
// child process (data/record_reader.h). Throws ConfigError for a data base that cannot be used, or whose images are not
// of one size.
ImageMean image_mean(const std::filesystem::path& database, std::optional<Backend> backend,
                     const ProgressFn& on_progress);

}  // namespace poseidon::caffe

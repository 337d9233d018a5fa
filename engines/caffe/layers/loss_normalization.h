// What the sum of a loss is divided by: the settings of LossParameter, for all losses that read them.
//
// A loss is a sum over positions, of which each record has one or several, and each has a label. Which of them count,
// and by how many the sum is divided, is said here and nowhere else.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "engines/caffe/layers/layer.h"
#include "engines/caffe/proto/message.h"

namespace poseidon::caffe {

class LossNormalization {
 public:
  enum class Mode : std::uint8_t {
    kFull,       // by all positions
    kValid,      // by the positions whose label is not ignored
    kBatchSize,  // by the records
    kNone,       // by one
  };

  // `unstated` holds where the prototxt gives neither `normalization` nor the older `normalize`, which is a choice
  // between VALID and BATCH_SIZE.
  explicit LossNormalization(const proto::Message& loss_param, Mode unstated = Mode::kValid);

  // Positions of this label add nothing to the sum.
  std::optional<std::int64_t> ignored() const { return ignored_; }

  // The sum over the positions, divided. `labels` is [records, ...], one label for each position; its values matter
  // where some are ignored, and are whole numbers then. At least 1 is divided by, so that a batch whose labels are all
  // ignored has a loss of zero.
  // What is not ignored is counted over all workers, which tell each other: the mean of their losses is then that of one
  // worker with all their records.
  at::Tensor divided(const at::Tensor& sum, const at::Tensor& labels, const ForwardContext& context) const;

 private:
  Mode mode_;
  std::optional<std::int64_t> ignored_;
};

}  // namespace poseidon::caffe

// A net as the planner and the replay see it: its layers in forward order, the shapes of what they train, and how much they
// compute. No values.
//
// Read from the JSON files of examples/models (examples/models/README.md lists the fields), which give all counts for one sample: an
// image, or a sequence of tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "poseidon/error.h"
#include "poseidon/types.h"

namespace poseidon::plan {

struct DescribedLayer {
  std::string name;
  std::vector<std::vector<std::int64_t>> parameters;  // shapes; empty: nothing to train
  bool has_factors = false;        // the first parameter's gradient is a sum of outer products, and no other layer adds to it
  std::int64_t rows_per_sample = 0;  // rows of its factors that one sample gives
  double forward_flops = 0;        // of one sample; a multiplication with its addition counts 2
  double backward_flops = 0;
};

struct ModelDescription {
  std::string name;
  std::vector<DescribedLayer> layers;

  double flops() const;              // of one sample, forward and backward
  std::uint64_t parameters() const;  // numbers trained
};

// kInvalid, with the layer and the field, where the text is no such description.
Result<ModelDescription> parse_model_description(std::string_view json);

// What the engine synchronises, for `batch` samples a worker and iteration. Layers without parameters are left out;
// `layer_of[i]` is the place in description.layers of the i-th that is in.
struct DescribedModel {
  Model model;
  std::vector<std::size_t> layer_of;
};
DescribedModel model_of(const ModelDescription& description, std::int64_t batch);

}  // namespace poseidon::plan

// How an array gets its first values: Caffe's fillers.
//
// Every value is a function of the stream (seed and the array's name) and of the element's index alone, drawn in double
// and rounded to the array's type: it depends neither on threads nor on workers, and a float32 net starts where its
// float64 twin does.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "base/philox.h"
#include "engines/caffe/proto/message.h"

namespace poseidon::caffe {

struct Filler {
  enum class Kind : std::uint8_t {
    kConstant,          // value
    kUniform,           // uniform in [min, max)
    kGaussian,          // mean, std; with `sparse` >= 0 on average so many non-zero inputs per output
    kPositiveUnitBall,  // uniform in [0, 1), then each output's values divided by their sum
    kXavier,            // uniform in ±sqrt(3 / n)
    kMsra,              // gaussian of variance 2 / n
    kBilinear,          // the kernel of bilinear upsampling, for Deconvolution
  };
  // What n is: with shape [s0, s1, ...], fan in is the product over s0, fan out the product over s1.
  enum class Norm : std::uint8_t { kFanIn, kFanOut, kAverage };

  Kind kind = Kind::kConstant;
  double value = 0;
  double min = 0;
  double max = 1;
  double mean = 0;
  double std = 1;
  std::int64_t sparse = -1;
  Norm norm = Norm::kFanIn;
};

// From a FillerParameter. Throws ConfigError with its position for a type that is none, or values without sense.
Filler read_filler(const proto::Message& filler);

// Throws ConfigError (without a position) where the filler does not suit the shape.
at::Tensor filled(const Filler& filler, const std::vector<std::int64_t>& shape, at::ScalarType dtype,
                  const base::RandomStream& stream);

// Fills `values`, one or more slices of the first axis of an array of `shape`. What depends on the shape is taken from
// the whole.
void fill_rows(const Filler& filler, const std::vector<std::int64_t>& shape, const base::RandomStream& stream,
               std::span<double> values);

}  // namespace poseidon::caffe

#include "engines/caffe/layers/filler.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <span>
#include <string>

#include "base/text.h"
#include "engines/caffe/layers/draws.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

const std::map<std::string, Filler::Kind>& kinds() {
  static const std::map<std::string, Filler::Kind> table = {
      {"constant", Filler::Kind::kConstant}, {"uniform", Filler::Kind::kUniform},
      {"gaussian", Filler::Kind::kGaussian}, {"positive_unitball", Filler::Kind::kPositiveUnitBall},
      {"xavier", Filler::Kind::kXavier},     {"msra", Filler::Kind::kMsra},
      {"bilinear", Filler::Kind::kBilinear}};
  return table;
}

Filler::Norm read_norm(const std::string& name) {
  if (name == "FAN_OUT") return Filler::Norm::kFanOut;
  if (name == "AVERAGE") return Filler::Norm::kAverage;
  return Filler::Norm::kFanIn;
}

std::int64_t count_of(std::span<const std::int64_t> shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

// Caffe's fans: what one slice of the first axis has, and what one slice of the second would.
double fan(Filler::Norm norm, std::span<const std::int64_t> shape) {
  const auto count = static_cast<double>(count_of(shape));
  const double in = shape.empty() ? count : count / static_cast<double>(shape[0]);
  const double out = shape.size() < 2 ? count : count / static_cast<double>(shape[1]);
  switch (norm) {
    case Filler::Norm::kFanOut:
      return out;
    case Filler::Norm::kAverage:
      return (in + out) / 2;
    case Filler::Norm::kFanIn:
      break;
  }
  return in;
}

void draw_between(double low, double high, const base::RandomStream& stream, std::span<double> values) {
  draw_uniform(stream, values);
  for (double& value : values) value = low + (high - low) * value;
}

void draw_gaussian(double mean, double std, const base::RandomStream& stream, std::span<double> values) {
  draw_normal(stream, values);
  for (double& value : values) value = mean + std * value;
}

// Keeps each value with probability sparse / outputs. The choice takes the stream's major word 1, the values have 0.
void thin_out(const Filler& filler, std::span<const std::int64_t> shape, const base::RandomStream& stream,
              std::span<double> values) {
  const double kept = static_cast<double>(filler.sparse) / static_cast<double>(shape.empty() ? 1 : shape[0]);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const base::PhiloxCounter words = stream.words(1, 0, static_cast<std::uint32_t>(i / 4));
    if (words[i % 4] * 0x1p-32 >= kept) values[i] = 0;
  }
}

void draw_unit_ball(std::span<const std::int64_t> shape, const base::RandomStream& stream, std::span<double> values) {
  draw_uniform(stream, values);
  const auto inputs = static_cast<std::size_t>(count_of(shape) / (shape.empty() ? 1 : shape[0]));
  for (std::size_t first = 0; first + inputs <= values.size() && inputs > 0; first += inputs) {
    const std::span<double> row = values.subspan(first, inputs);
    const double sum = std::accumulate(row.begin(), row.end(), 0.0);
    for (double& value : row) value /= sum;
  }
}

// Each [height, width] slice is the outer product of two triangles.
void fill_bilinear(std::span<const std::int64_t> shape, std::span<double> values) {
  if (shape.size() != 4 || shape[2] != shape[3]) {
    throw ConfigError(
        base::concat("a bilinear filler wants a square kernel of 4 axes, this array is ", base::readable_shape(shape)));
  }
  const auto width = static_cast<std::size_t>(shape[3]);
  const double factor = std::ceil(static_cast<double>(width) / 2);
  const double centre = static_cast<double>(width - 1) / (2 * factor);
  const auto triangle = [&](std::size_t i) { return 1 - std::fabs(static_cast<double>(i) / factor - centre); };
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = triangle(i % width) * triangle(i / width % width);
  }
}

}  // namespace

Filler read_filler(const proto::Message& filler) {
  const std::string type = filler.text("type");
  const auto kind = kinds().find(type);
  if (kind == kinds().end()) {
    std::vector<std::string> names;
    for (const auto& [name, unused] : kinds()) names.push_back(name);
    throw ConfigError(base::concat(filler.position("type").text(), ": there is no filler \"", type, "\"",
                                   base::did_you_mean(type, names), " (there are ", base::join_words(names), ")"));
  }
  const Filler read{.kind = kind->second,
                    .value = filler.real("value"),
                    .min = filler.real("min"),
                    .max = filler.real("max"),
                    .mean = filler.real("mean"),
                    .std = filler.real("std"),
                    .sparse = filler.integer("sparse"),
                    .norm = read_norm(filler.choice("variance_norm"))};
  if (read.max < read.min) {
    throw ConfigError(base::concat(filler.position("max").text(),
                                   ": a filler's max must not be below its min, here max is ", read.max, " and min ",
                                   read.min));
  }
  if (read.std < 0) {
    throw ConfigError(
        base::concat(filler.position("std").text(), ": a filler's std must not be negative, this is ", read.std));
  }
  return read;
}

at::Tensor filled(const Filler& filler, const std::vector<std::int64_t>& shape, at::ScalarType dtype,
                  const base::RandomStream& stream) {
  if (filler.kind == Filler::Kind::kConstant) return at::full(shape, filler.value, dtype);
  const at::Tensor drawn = at::empty(shape, at::kDouble);
  fill_rows(filler, shape, stream, {drawn.mutable_data_ptr<double>(), static_cast<std::size_t>(drawn.numel())});
  return drawn.to(dtype);
}

void fill_rows(const Filler& filler, const std::vector<std::int64_t>& shape, const base::RandomStream& stream,
               std::span<double> values) {
  const double n = fan(filler.norm, shape);
  switch (filler.kind) {
    case Filler::Kind::kConstant:
      std::fill(values.begin(), values.end(), filler.value);
      break;
    case Filler::Kind::kUniform:
      draw_between(filler.min, filler.max, stream, values);
      break;
    case Filler::Kind::kGaussian:
      draw_gaussian(filler.mean, filler.std, stream, values);
      if (filler.sparse >= 0) thin_out(filler, shape, stream, values);
      break;
    case Filler::Kind::kPositiveUnitBall:
      draw_unit_ball(shape, stream, values);
      break;
    case Filler::Kind::kXavier:
      draw_between(-std::sqrt(3 / n), std::sqrt(3 / n), stream, values);
      break;
    case Filler::Kind::kMsra:
      draw_gaussian(0, std::sqrt(2 / n), stream, values);
      break;
    case Filler::Kind::kBilinear:
      fill_bilinear(shape, values);
      break;
  }
}

}  // namespace poseidon::caffe

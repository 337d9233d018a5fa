#include "engines/caffe/proto/safetensors_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;
using nlohmann::ordered_json;

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kHeaderBytesMax = 100'000'000;  // as the format's own library has it
constexpr std::size_t kAxesMax = 32;                    // as Caffe's blobs have at most
constexpr std::string_view kMetadata = "__metadata__";
constexpr std::string_view kLayers = "caffe_layers";

static_assert(std::endian::native == std::endian::little, "the format's numbers are little-endian");

std::string array_name(const TrainedLayer& layer, std::size_t index) {
  static constexpr std::array<std::string_view, 3> kStatistics = {"running_mean", "running_var", "scale_factor"};
  static constexpr std::array<std::string_view, 2> kUsual = {"weight", "bias"};
  if (layer.type == "BatchNorm" && index < kStatistics.size()) return concat(layer.name, ".", kStatistics[index]);
  return index < kUsual.size() ? concat(layer.name, ".", kUsual[index]) : concat(layer.name, ".", index);
}

// Where a name stands among those of its layer.
std::size_t place_of(std::string_view array) {
  static constexpr std::array<std::string_view, 5> kFirst = {"weight", "bias", "running_mean", "running_var",
                                                             "scale_factor"};
  return static_cast<std::size_t>(std::find(kFirst.begin(), kFirst.end(), array) - kFirst.begin());
}

float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1Fu;
  const std::uint32_t fraction = half & 0x3FFu;
  if (exponent == 0) {  // zero, or a number with leading zeros
    const float small = static_cast<float>(fraction) * 0x1p-24F;
    return sign == 0 ? small : -small;
  }
  const std::uint32_t wide = exponent == 0x1F ? 0xFFu : exponent + (127 - 15);
  return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
}

float float_of_bfloat(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

template <typename From, typename To, typename Convert>
std::vector<To> numbers(std::string_view bytes, Convert convert) {
  std::vector<To> values(bytes.size() / sizeof(From));
  for (std::size_t i = 0; i < values.size(); ++i) {
    From one;
    std::memcpy(&one, bytes.data() + i * sizeof(From), sizeof(From));
    values[i] = convert(one);
  }
  return values;
}

class Reader {
 public:
  Reader(std::string_view bytes, std::string_view file) : bytes_(bytes), file_(file) {}

  TrainedNet read() {
    if (bytes_.size() < kLengthBytes) fail("is too short for a safetensors file");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), kLengthBytes);
    if (length > kHeaderBytesMax || length > bytes_.size() - kLengthBytes) {
      fail(concat("is no safetensors file, or cut off: its header would have ", length, " bytes"));
    }
    const ordered_json header = ordered_json::parse(bytes_.substr(kLengthBytes, length), nullptr, false);
    if (!header.is_object()) fail("is no safetensors file: its header is not a JSON object");
    data_ = bytes_.substr(kLengthBytes + length);
    for (const auto& [name, entry] : header.items()) {
      if (name != kMetadata) arrays_.emplace(name, read_array(name, entry));
      if (name != kMetadata) order_.push_back(name);
    }
    if (arrays_.empty()) fail("holds no array");
    TrainedNet net;
    if (!read_layers(header, net)) guess_layers(net);
    return net;
  }

 private:
  [[noreturn]] void fail(const std::string& text) const { throw ConfigError(concat(file_, ": ", text)); }

  Blob read_array(const std::string& name, const ordered_json& entry) const {
    const auto refuse = [&](const std::string& why) { fail(concat("array \"", name, "\" ", why)); };
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
        !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
        entry["data_offsets"].size() != 2) {
      refuse("lacks its dtype, shape or data_offsets");
    }
    Blob blob;
    std::uint64_t count = 1;
    if (entry["shape"].size() > kAxesMax) refuse(concat("has more than ", kAxesMax, " axes"));
    for (const ordered_json& axis : entry["shape"]) {
      if (!axis.is_number_unsigned() || axis.get<std::uint64_t>() > (std::uint64_t{1} << 40)) refuse("has an impossible shape");
      const auto size = axis.get<std::uint64_t>();
      if (size != 0 && count > data_.size() / size) refuse("has a shape of more numbers than the file");
      count *= size;
      blob.shape.push_back(static_cast<std::int64_t>(size));
    }
    for (const ordered_json& offset : entry["data_offsets"]) {
      if (!offset.is_number_unsigned()) refuse("has offsets that are no numbers");
    }
    const auto begin = entry["data_offsets"][0].get<std::uint64_t>();
    const auto end = entry["data_offsets"][1].get<std::uint64_t>();
    if (begin > end || end > data_.size()) refuse(concat("would lie at bytes ", begin, " to ", end, " of ", data_.size(), "; the file is cut off or damaged"));
    const std::string_view bytes = data_.substr(begin, end - begin);
    const std::string dtype = entry["dtype"];
    const std::size_t size = dtype == "F64" ? 8 : dtype == "F32" ? 4 : dtype == "F16" || dtype == "BF16" ? 2 : 0;
    if (size == 0) refuse(concat("is of type ", dtype, "; a trained layer's arrays are F32, F64, F16 or BF16"));
    if (bytes.size() != count * size) refuse(concat("has ", bytes.size(), " bytes for ", count, " numbers of type ", dtype));
    const auto same = [](auto value) { return value; };
    if (size == 8) {
      blob.values = numbers<double, double>(bytes, same);
    } else if (size == 4) {
      blob.values = numbers<float, float>(bytes, same);
    } else {
      blob.values = numbers<std::uint16_t, float>(bytes, dtype == "F16" ? float_of_half : float_of_bfloat);
    }
    return blob;
  }

  // As safetensors_bytes() has written them. False: nobody has.
  bool read_layers(const ordered_json& header, TrainedNet& net) {
    const auto metadata = header.find(kMetadata);
    if (metadata == header.end() || !metadata->is_object() || !metadata->contains(kLayers) || !(*metadata)[kLayers].is_string()) return false;
    const ordered_json layers = ordered_json::parse((*metadata)[kLayers].get<std::string>(), nullptr, false);
    const auto is_text = [](const ordered_json& object, const char* field) { return object.contains(field) && object[field].is_string(); };
    if (!layers.is_object() || !is_text(layers, "name") || !layers.contains("layers") || !layers["layers"].is_array()) {
      fail("has metadata of Poseidon's that cannot be read");
    }
    net.name = layers["name"];
    std::size_t used = 0;
    for (const ordered_json& entry : layers["layers"]) {
      if (!entry.is_object() || !is_text(entry, "name") || !is_text(entry, "type") || !entry.contains("arrays") ||
          !entry["arrays"].is_array()) {
        fail("has metadata of Poseidon's that cannot be read");
      }
      TrainedLayer& layer = net.layers.emplace_back();
      layer.name = entry["name"];
      layer.type = entry["type"];
      for (const ordered_json& name : entry["arrays"]) {
        const auto array = name.is_string() ? arrays_.find(name.get<std::string>()) : arrays_.end();
        if (array == arrays_.end()) fail(concat("lacks an array of layer \"", layer.name, "\": ", name.dump()));
        layer.blobs.push_back(std::move(array->second));
        arrays_.erase(array);
        ++used;
      }
    }
    if (used != order_.size()) fail(concat("has an array \"", arrays_.begin()->first, "\" that belongs to no layer"));
    return true;
  }

  void guess_layers(TrainedNet& net) {
    std::map<std::string, std::size_t> numbers;                 // of layers, by name
    std::vector<std::vector<std::pair<std::size_t, std::string>>> parts;  // of each: where its arrays stand
    for (const std::string& name : order_) {
      const std::size_t dot = name.rfind('.');
      const std::string layer = name.substr(0, dot);
      const auto [entry, is_new] = numbers.emplace(layer, net.layers.size());
      if (is_new) {
        net.layers.push_back({layer, "", {}});
        parts.emplace_back();
      }
      parts[entry->second].emplace_back(dot == std::string::npos ? 0 : place_of(std::string_view(name).substr(dot + 1)), name);
    }
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::stable_sort(parts[i].begin(), parts[i].end(), [](const auto& a, const auto& b) { return a.first < b.first; });
      for (const auto& [place, name] : parts[i]) net.layers[i].blobs.push_back(std::move(arrays_.at(name)));
    }
  }

  std::string_view bytes_;
  std::string file_;
  std::string_view data_;
  std::map<std::string, Blob> arrays_;
  std::vector<std::string> order_;  // of the arrays in the header
};

}  // namespace

std::string safetensors_bytes(const TrainedNet& net) {
  ordered_json header = {{std::string(kMetadata), ordered_json::object()}};
  ordered_json layers = {{"name", net.name}, {"layers", ordered_json::array()}};
  std::uint64_t offset = 0;
  std::vector<const Blob*> blobs;
  const auto put = [&](const std::string& name, const Blob& blob) {
    const std::uint64_t bytes = blob.count() * (blob.dtype() == DType::kFloat64 ? 8 : 4);
    header[name] = {{"dtype", blob.dtype() == DType::kFloat64 ? "F64" : "F32"}, {"shape", blob.shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
    blobs.push_back(&blob);
  };
  for (const TrainedLayer& layer : net.layers) {
    ordered_json names = ordered_json::array();
    for (std::size_t i = 0; i < layer.blobs.size(); ++i) {
      std::string name = array_name(layer, i);
      // Caffe lets two layers have one name (in different phases).
      while (header.contains(name)) name += "'";
      names.push_back(name);
      put(name, layer.blobs[i]);
    }
    layers["layers"].push_back({{"name", layer.name}, {"type", layer.type}, {"arrays", names}});
  }
  header[std::string(kMetadata)] = {{"format", "caffe"}, {std::string(kLayers), layers.dump(-1, ' ', false, ordered_json::error_handler_t::replace)}};
  std::string text = header.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the numbers behind it are aligned
  const std::uint64_t length = text.size();
  std::string bytes(reinterpret_cast<const char*>(&length), kLengthBytes);
  bytes.reserve(kLengthBytes + length + offset);
  bytes += text;
  for (const Blob* blob : blobs) {
    std::visit([&](const auto& values) { bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0])); }, blob->values);
  }
  return bytes;
}

TrainedNet parse_safetensors(std::string_view bytes, std::string_view file_name) {
  return Reader(bytes, file_name).read();
}

Status write_safetensors(const std::filesystem::path& file, const TrainedNet& net) {
  return base::write_file_atomically(file, std::string_view(safetensors_bytes(net)));
}

TrainedNet read_safetensors(const std::filesystem::path& file) {
  constexpr std::size_t kFileBytesMax = std::size_t{1} << 40;
  const Result<std::string> bytes = base::read_file(file, kFileBytesMax);
  if (!bytes) throw ConfigError(bytes.error().message);
  return parse_safetensors(*bytes, file.string());
}

}  // namespace poseidon::caffe::proto

#include "engines/caffe/proto/datum.h"

#include <utility>

#include "base/text.h"
#include "engines/caffe/proto/binary_message.h"
#include "engines/caffe/proto/caffe.pb.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe::proto {
namespace {

using base::concat;

std::string extents(const ::caffe::Datum& datum) {
  return concat("[", datum.channels(), ", ", datum.height(), ", ", datum.width(), "]");
}

void require_extents_fit(const ::caffe::Datum& datum, const std::string& where) {
  std::int64_t product = 1;
  bool fits = true;
  for (const std::int64_t extent : {datum.channels(), datum.height(), datum.width()}) {
    fits = fits && extent > 0 && !__builtin_mul_overflow(product, extent, &product);
  }
  const auto bytes = static_cast<std::int64_t>(datum.data().size());
  const std::int64_t floats = datum.float_data_size();
  if (!fits || (bytes > 0 && floats > 0) || product != bytes + floats) {
    throw ConfigError(concat(where, ": is not an image record: its extents are ", extents(datum), ", and it has ",
                             bytes, " bytes and ", floats, " floats"));
  }
}

}  // namespace

Datum parse_datum(std::string_view bytes, std::string_view where) {
  const std::string place(where);
  ::caffe::Datum message;
  parse_binary(bytes, place, "an image record (Datum)", message);
  if (!message.encoded()) {
    require_extents_fit(message, place);
  } else if (message.data().empty()) {
    throw ConfigError(concat(place, ": is an encoded image without a single byte"));
  }
  Datum datum;
  datum.channels = message.channels();
  datum.height = message.height();
  datum.width = message.width();
  datum.label = message.label();
  datum.encoded = message.encoded();
  datum.bytes = std::move(*message.mutable_data());
  datum.floats.assign(message.float_data().begin(), message.float_data().end());
  return datum;
}

std::string datum_bytes(Datum datum) {
  ::caffe::Datum message;
  if (!datum.encoded || datum.channels != 0) {
    message.set_channels(datum.channels);
    message.set_height(datum.height);
    message.set_width(datum.width);
  }
  if (!datum.bytes.empty()) message.set_data(std::move(datum.bytes));
  message.set_label(datum.label);
  message.mutable_float_data()->Add(datum.floats.begin(), datum.floats.end());
  message.set_encoded(datum.encoded);
  return message.SerializePartialAsString();
}

}  // namespace poseidon::caffe::proto

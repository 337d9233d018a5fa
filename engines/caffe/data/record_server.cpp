#include "engines/caffe/data/record_server.h"

#include <algorithm>

#include "base/text.h"
#include "engines/caffe/data/lmdb_store.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

// The value of the record that the cursor is on, decoded where need be. The copy is where a lost page ends the process.
std::string plain_value(const LmdbReader& reader, const ServeOptions& options, std::uint64_t index,
                        const DecodeFn& decode) {
  const std::string_view stored = reader.value();
  const std::string where = base::concat(options.database.string(), ": record ", reader.position(), " (key ",
                                         readable_key(reader.key()), ")");
  if (stored.size() > kValueBytesMax) {
    throw ConfigError(base::concat(where, " says that it has ", stored.size(), " bytes; it is damaged"));
  }
  std::string value(stored);
  if (proto::parse_datum(value, where).encoded) value = decode({index, value, where});
  if (value.size() > kValueBytesMax) {
    throw ConfigError(base::concat(where, " is larger than ", base::readable_bytes(kValueBytesMax)));
  }
  return value;
}

}  // namespace

void serve_records(const ServeOptions& options, const DecodeFn& decode, int pipe) {
  LmdbReader reader(options.database);
  if (!options.go_on_at && !write_frame(pipe, FrameKind::kHello, reader.count(), kHelloKey, "")) return;
  const std::uint64_t start = options.go_on_at.value_or(options.first);
  const std::uint64_t stride = options.take + options.skip;
  for (std::uint64_t begin = start - (start - options.first) % stride;; begin += stride) {
    for (std::uint64_t index = std::max(begin, start); index < begin + options.take; ++index) {
      reader.move_to(index % reader.count());
      const std::string value = plain_value(reader, options, index, decode);
      if (!write_frame(pipe, FrameKind::kRecord, index, reader.key(), value)) return;
    }
  }
}

}  // namespace poseidon::caffe

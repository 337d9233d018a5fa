#include "engines/caffe/data/record_server.h"

#include <utility>

#include "base/text.h"
#include "engines/caffe/data/lmdb_store.h"
#include "engines/caffe/data/jpeg.h"
#include "engines/caffe/data/ordered_pool.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/datum.h"

namespace poseidon::caffe {
namespace {

// A record as it is stored.
struct Stored {
  std::uint64_t index = 0;  // global
  std::string key;
  std::string value;
  std::string where;  // for messages
};

// Reads the records that are to be sent, in their order.
class StoredRecords {
 public:
  StoredRecords(LmdbReader& reader, const ServeOptions& options)
      : reader_(reader), options_(options), index_(options.go_on_at.value_or(options.first)) {}

  // The copy of the value is where a lost page ends the process.
  Stored next() {
    reader_.move_to(index_ % reader_.count());
    Stored stored{index_, std::string(reader_.key()), "", ""};
    stored.where = base::concat(options_.database.string(), ": record ", reader_.position(), " (key ",
                                readable_key(stored.key), ")");
    const std::string_view value = reader_.value();
    if (value.size() > kValueBytesMax) {
      throw ConfigError(base::concat(stored.where, " says that it has ", value.size(), " bytes; it is damaged"));
    }
    stored.value = value;
    ++index_;
    const bool run_is_over = (index_ - options_.first) % (options_.take + options_.skip) == options_.take;
    if (run_is_over) index_ += options_.skip;
    return stored;
  }

 private:
  LmdbReader& reader_;
  const ServeOptions& options_;
  std::uint64_t index_;  // of the next record
};

bool is_jpeg(const std::string& bytes) {
  thread_local JpegDecoder decoder;
  return decoder.open(bytes).has_value();
}

// The record as the trainer wants it.
Stored ready(Stored record, const ServeOptions& options, const DecodeFn& decode) {
  const proto::Datum datum = proto::parse_datum(record.value, record.where);
  if (datum.encoded && !(options.leaves_jpegs && is_jpeg(datum.bytes))) {
    record.value = decode({record.index, record.value, record.where});
  }
  if (record.value.size() > kValueBytesMax) {
    throw ConfigError(base::concat(record.where, " is larger than ", base::readable_bytes(kValueBytesMax)));
  }
  return record;
}

bool send(const Stored& record, int pipe) {
  return write_frame(pipe, FrameKind::kRecord, record.index, record.key, record.value);
}

}  // namespace

void serve_records(const ServeOptions& options, const DecodeFn& decode, int pipe) {
  LmdbReader reader(options.database);
  if (!options.go_on_at && !write_frame(pipe, FrameKind::kHello, reader.count(), kHelloKey, "")) return;
  StoredRecords records(reader, options);
  if (options.threads <= 1) {
    while (send(ready(records.next(), options, decode), pipe)) {
    }
    return;
  }
  OrderedPool<Stored, Stored> pool(
      {options.threads, kAheadPerThread * options.threads}, [&] { return records.next(); },
      [&](Stored record) { return ready(std::move(record), options, decode); });
  while (send(pool.next(), pipe)) {
  }
}

}  // namespace poseidon::caffe

#include "engines/caffe/data/record_server.h"

#include <chrono>
#include <memory>
#include <mutex>
#include <utility>

#include "base/text.h"
#include "engines/caffe/data/jpeg.h"
#include "engines/caffe/data/ordered_pool.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/data/record_store.h"
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

// The pipe to the trainer, which a thread that decodes and one that walks over records may both have to write to.
class FramePipe {
 public:
  explicit FramePipe(int descriptor) : descriptor_(descriptor) {}

  // False when nobody reads any more.
  bool write(FrameKind kind, std::uint64_t index, std::string_view key, std::string_view value) {
    const std::lock_guard lock(mutex_);
    written_ = Clock::now();
    return write_frame(descriptor_, kind, index, key, value);
  }
  // Says that there is life, at most once a second.
  void show_life() {
    const std::lock_guard lock(mutex_);
    if (Clock::now() - written_ < std::chrono::seconds(1)) return;
    written_ = Clock::now();
    write_frame(descriptor_, FrameKind::kBusy, 0, "", "");
  }

 private:
  using Clock = std::chrono::steady_clock;

  const int descriptor_;
  std::mutex mutex_;  // guards the order of bytes in the pipe, and written_
  Clock::time_point written_ = Clock::now();
};

// Reads the records that are to be sent, in their order.
class StoredRecords {
 public:
  StoredRecords(StoreReader& reader, const ServeOptions& options, FramePipe& pipe)
      : reader_(reader), options_(options), pipe_(pipe), index_(options.go_on_at.value_or(options.first)) {}

  // The copy of the value is where a lost page ends the process.
  Stored next() {
    reader_.seek(index_, [this] { pipe_.show_life(); });
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
  StoreReader& reader_;
  const ServeOptions& options_;
  FramePipe& pipe_;
  std::uint64_t index_;  // of the next record
};

bool is_jpeg(const std::string& bytes) {
  thread_local JpegDecoder decoder;
  return decoder.open(bytes).has_value();
}

// The record as the trainer wants it.
Stored ready(Stored record, const ServeOptions& options, const DecodeFn& decode) {
  if (options.verbatim) return record;
  const proto::Datum datum = proto::parse_datum(record.value, record.where);
  if (datum.encoded && !(options.leaves_jpegs && is_jpeg(datum.bytes))) {
    record.value = decode({record.index, record.value, record.where});
  }
  if (record.value.size() > kValueBytesMax) {
    throw ConfigError(base::concat(record.where, " is larger than ", base::readable_bytes(kValueBytesMax)));
  }
  return record;
}

bool send(const Stored& record, FramePipe& pipe) {
  return pipe.write(FrameKind::kRecord, record.index, record.key, record.value);
}

}  // namespace

void serve_records(const ServeOptions& options, const DecodeFn& decode, int descriptor) {
  const std::unique_ptr<StoreReader> reader = open_store(options.database, options.backend);
  FramePipe pipe(descriptor);
  if (!options.go_on_at && !pipe.write(FrameKind::kHello, reader->known_count().value_or(0), kHelloKey, "")) return;
  StoredRecords records(*reader, options, pipe);
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

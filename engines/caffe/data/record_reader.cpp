#include "engines/caffe/data/record_reader.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/text.h"
#include "engines/caffe/data/child_program.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

namespace poseidon::caffe {
namespace {

using base::concat;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

constexpr std::size_t kBufferBytes = 256 * 1024;

// Texts are in one word with the names of their flags: they may begin with a dash.
void add_flags(const ImageFiles& images, std::vector<std::string>& words) {
  words.insert(words.end(), {"--width", std::to_string(images.width), "--height", std::to_string(images.height)});
  if (!images.prefix.empty()) words.push_back("--prefix=" + images.prefix);
  if (images.shuffle) {
    words.insert(words.end(), {"--shuffle", "--seed", std::to_string(images.seed), "--purpose=" + images.purpose});
  }
}

void add_flags(const WindowFiles& windows, std::vector<std::string>& words) {
  words.insert(words.end(), {"--side", std::to_string(windows.crop.side), "--context-pad",
                             std::to_string(windows.crop.context_pad), "--seed", std::to_string(windows.seed),
                             "--purpose=" + windows.purpose});
  // Exactly, as nine digits say a float.
  for (const auto& [flag, value] : {std::pair{"--fg-threshold=", windows.foreground_threshold},
                                    {"--bg-threshold=", windows.background_threshold},
                                    {"--fg-fraction=", windows.foreground_share}}) {
    std::array<char, 32> digits{};
    std::snprintf(digits.data(), digits.size(), "%.9g", static_cast<double>(value));
    words.push_back(std::string(flag) + digits.data());
  }
  if (!windows.prefix.empty()) words.push_back("--prefix=" + windows.prefix);
  for (const auto& [flag, given] : {std::pair{"--square", windows.crop.square},
                                    {"--double", windows.crop.in_double},
                                    {"--mirror", windows.mirror},
                                    {"--cache", windows.cache}}) {
    if (given) words.emplace_back(flag);
  }
}

void add_flags(const Hdf5Rows& rows, std::vector<std::string>& words) {
  for (const std::string& dataset : rows.datasets) words.push_back("--dataset=" + dataset);
  if (rows.in_double) words.emplace_back("--double");
  if (rows.shuffle) {
    words.insert(words.end(), {"--shuffle", "--seed", std::to_string(rows.seed), "--purpose=" + rows.purpose});
  }
}

std::vector<std::string> command_line(const fs::path& program, const RecordReaderOptions& options) {
  const char* const source = options.images    ? "--images"
                             : options.windows ? "--windows"
                             : options.hdf5    ? "--hdf5"
                                               : "--database";
  std::vector<std::string> words = {program.string(),
                                    "read",
                                    source,
                                    options.source.string(),
                                    "--first",
                                    std::to_string(options.first),
                                    "--take",
                                    std::to_string(options.take),
                                    "--skip",
                                    std::to_string(options.skip),
                                    "--color",
                                    std::string(to_string(options.color)),
                                    "--parent",
                                    std::to_string(::getpid())};
  if (options.takes_jpegs) words.push_back("--leave-jpegs");
  if (options.verbatim) words.emplace_back("--verbatim");
  if (options.backend) words.insert(words.end(), {"--backend", std::string(flag_of(*options.backend))});
  if (options.images) add_flags(*options.images, words);
  if (options.windows) add_flags(*options.windows, words);
  if (options.hdf5) add_flags(*options.hdf5, words);
  return words;
}

}  // namespace

std::string_view to_string(ImageColor color) {
  switch (color) {
    case ImageColor::kAsStored:
      return "as-stored";
    case ImageColor::kColor:
      return "color";
    case ImageColor::kGray:
      return "gray";
  }
  return "unknown";
}

std::size_t data_threads() {
  const char* const given = std::getenv("POSEIDON_DATA_THREADS");
  const int threads = given == nullptr ? 0 : std::atoi(given);
  return threads > 0 ? static_cast<std::size_t>(threads) : std::max(1U, std::thread::hardware_concurrency());
}

// The running child and what has come from it.
class RecordReader::Child {
 public:
  explicit Child(RecordReaderOptions options);
  ~Child() { end(); }

  std::optional<std::uint64_t> size() const { return size_; }
  const std::string& about() const { return about_; }
  int process() const { return process_; }
  const Record& peek();
  Record take();

 private:
  struct Frame {
    FrameHeader header;
    std::string key;
    std::string value;
  };

  // The next frame that is not a sign of life alone.
  Frame receive();
  Frame receive_any(Clock::time_point deadline);
  // Exactly as many bytes as `into` is long.
  void read_exactly(char* into, std::size_t bytes, Clock::time_point deadline);
  std::size_t read_some(char* into, std::size_t bytes_max, Clock::time_point deadline);
  void greet();
  void advance();
  int end();

  // The data base is at fault: ConfigError, unless said otherwise.
  template <typename Error = ConfigError>
  [[noreturn]] void fail(const std::string& message);
  [[noreturn]] void fail_of_death();
  [[noreturn]] void fail_of_silence();
  std::string place() const;

  RecordReaderOptions options_;
  pid_t process_ = -1;  // -1 once it has been collected
  Descriptor pipe_;
  std::vector<char> buffer_ = std::vector<char>(kBufferBytes);
  std::size_t begin_ = 0;  // what buffer_ holds and nobody has taken
  std::size_t end_ = 0;

  bool greeted_ = false;
  std::string about_;
  std::optional<std::uint64_t> size_;
  std::uint64_t expected_ = 0;                                 // the index of the next record
  std::uint64_t left_to_take_ = 0;                             // of the present run of `take`
  std::optional<Record> next_;                                 // received, not yet taken
  std::optional<std::pair<std::uint64_t, std::string>> last_;  // index and key of the last record that came whole
  std::exception_ptr failure_;  // thrown now and ever after
};

RecordReader::Child::Child(RecordReaderOptions options) : options_(std::move(options)) {
  if (options_.take == 0) throw std::logic_error("RecordReader: take must be at least 1");
  expected_ = options_.first;
  left_to_take_ = options_.take;
  const fs::path program = options_.program.empty() ? data_program() : options_.program;
  Pipe pipe = make_pipe();
  pipe_ = std::move(pipe.reading);
  process_ = spawn(program, command_line(program, options_), -1, pipe.writing.get());
  pipe.writing.close();
  try {
    greet();
  } catch (...) {
    end();
    throw;
  }
}

void RecordReader::Child::greet() {
  const Frame frame = receive();
  if (frame.header.kind == FrameKind::kError) fail(frame.value);
  if (frame.header.kind != FrameKind::kHello || frame.key != kHelloKey) {
    fail("the program poseidon-data is of another version than this one; build both anew");
  }
  greeted_ = true;
  if (frame.header.index > 0) size_ = frame.header.index;
  about_ = frame.value;
}

const Record& RecordReader::Child::peek() {
  if (failure_) std::rethrow_exception(failure_);
  if (next_) return *next_;
  Frame frame = receive();
  if (frame.header.kind == FrameKind::kError) fail(frame.value);
  if (frame.header.kind != FrameKind::kRecord || frame.header.index != expected_) {
    fail(concat("the reader of ", options_.source.string(), " sent record ", frame.header.index, " instead of ",
                expected_));
  }
  next_ = Record{frame.header.index, std::move(frame.key), std::move(frame.value)};
  return *next_;
}

Record RecordReader::Child::take() {
  peek();
  Record record = std::move(*next_);
  next_.reset();
  last_ = {record.index, record.key};
  advance();
  return record;
}

void RecordReader::Child::advance() {
  ++expected_;
  if (--left_to_take_ > 0) return;
  expected_ += options_.skip;
  left_to_take_ = options_.take;
}

RecordReader::Child::Frame RecordReader::Child::receive() {
  for (;;) {
    Frame frame = receive_any(Clock::now() + options_.wait_max);
    if (frame.header.kind != FrameKind::kBusy) return frame;
  }
}

RecordReader::Child::Frame RecordReader::Child::receive_any(Clock::time_point deadline) {
  std::array<char, kFrameHeaderBytes> bytes{};
  read_exactly(bytes.data(), bytes.size(), deadline);
  const Result<FrameHeader> header = decode_frame_header({bytes.data(), bytes.size()});
  if (!header) fail(concat("the reader of ", options_.source.string(), " sent nonsense: ", header.error().message));
  Frame frame{*header, std::string(header->key_bytes, '\0'), std::string(header->value_bytes, '\0')};
  read_exactly(frame.key.data(), frame.key.size(), deadline);
  read_exactly(frame.value.data(), frame.value.size(), deadline);
  return frame;
}

void RecordReader::Child::read_exactly(char* into, std::size_t bytes, Clock::time_point deadline) {
  while (bytes > 0) {
    if (begin_ == end_ && bytes >= buffer_.size()) {
      // A large value needs no stop in the buffer.
      const std::size_t got = read_some(into, bytes, deadline);
      into += got;
      bytes -= got;
      continue;
    }
    if (begin_ == end_) {
      begin_ = 0;
      end_ = read_some(buffer_.data(), buffer_.size(), deadline);
    }
    const std::size_t part = std::min(bytes, end_ - begin_);
    std::memcpy(into, buffer_.data() + begin_, part);
    begin_ += part;
    into += part;
    bytes -= part;
  }
}

std::size_t RecordReader::Child::read_some(char* into, std::size_t bytes_max, Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd waiting{pipe_.get(), POLLIN, 0};
    const int ready = ::poll(&waiting, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1 << 30)));
    if (ready == 0) fail_of_silence();
    if (ready < 0 && errno != EINTR)
      fail<SystemError>(concat("cannot wait for the reader of ", options_.source.string(), ": ", std::strerror(errno)));
    if (ready < 0) continue;
    const ssize_t got = ::read(pipe_.get(), into, bytes_max);
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0) fail_of_death();
    if (errno != EINTR)
      fail<SystemError>(
          concat("cannot read from the reader of ", options_.source.string(), ": ", std::strerror(errno)));
  }
}

// Ends and collects the child, and returns its wait status; 0 if somebody else has collected it.
int RecordReader::Child::end() {
  pipe_.close();
  return process_ < 0 ? 0 : kill_and_collect(std::exchange(process_, -1));
}

// "near record 812 (the last one read was 811, key 00000811_a.png)": places in the data base, or in the list's present
// order; global indices only where it is not known how many there are.
std::string RecordReader::Child::place() const {
  if (!greeted_) return "at its beginning";
  const auto number = [&](std::uint64_t index) { return size_ ? index % *size_ : index; };
  std::string text = concat("near record ", number(expected_));
  if (last_)
    text += concat(" (the last one read was ", number(last_->first), ", key ", readable_key(last_->second), ")");
  return text;
}

template <typename Error>
void RecordReader::Child::fail(const std::string& message) {
  failure_ = std::make_exception_ptr(Error(message));
  end();
  std::rethrow_exception(failure_);
}

void RecordReader::Child::fail_of_silence() {
  fail<SystemError>(concat("no record came from ", options_.source.string(), " for ",
                           base::readable_seconds(std::chrono::duration<double>(options_.wait_max).count()), ", ",
                           place(), "; is its disk or network file system stuck?"));
}

void RecordReader::Child::fail_of_death() {
  // The pipe is closed a moment before the child is dead, and end() would then be what killed it.
  wait_for_death(process_, std::chrono::seconds(5));
  const int status = end();
  const std::string source = options_.source.string();
  if (!WIFSIGNALED(status)) {
    fail(concat("the reader of ", source, " ended ", place(), " with exit code ", WEXITSTATUS(status)));
  }
  const int number = WTERMSIG(status);
  if (!is_death_of_damage(number)) {
    fail<SystemError>(concat("the reader of ", source, " was ended by ", signal_name(number), " ", place(),
                             number == SIGKILL ? "; by somebody, or because memory is short" : ""));
  }
  if (options_.images || options_.windows || options_.hdf5) {
    fail(concat("the reader of ", source, " died of ", signal_name(number), " ", place(), "; one of the next ",
                options_.hdf5 ? "files" : "images", " may be damaged"));
  }
  fail(concat(source, " is damaged ", place(), ": its reader died of ", signal_name(number),
              "; create the data base again"));
}

RecordReader::RecordReader(RecordReaderOptions options) : child_(std::make_unique<Child>(std::move(options))) {}
RecordReader::~RecordReader() = default;
RecordReader::RecordReader(RecordReader&&) noexcept = default;
RecordReader& RecordReader::operator=(RecordReader&&) noexcept = default;

std::optional<std::uint64_t> RecordReader::size() const {
  return child_->size();
}
const std::string& RecordReader::about() const {
  return child_->about();
}
const Record& RecordReader::peek() {
  return child_->peek();
}
Record RecordReader::next() {
  return child_->take();
}
int RecordReader::process() const {
  return child_->process();
}

}  // namespace poseidon::caffe

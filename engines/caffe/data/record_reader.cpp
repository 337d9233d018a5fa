#include "engines/caffe/data/record_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/text.h"
#include "engines/caffe/data/record_protocol.h"
#include "engines/caffe/proto/config_error.h"
#include "engines/caffe/proto/system_error.h"

extern char** environ;

namespace poseidon::caffe {
namespace {

using base::concat;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

// What the child may have ready: many small records or a few large ones. The kernel may give less.
constexpr int kPipeBytes = 1 << 20;
constexpr std::size_t kBufferBytes = 256 * 1024;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

// Both ends above the three standard descriptors, which the child's own take the place of.
std::pair<Descriptor, Descriptor> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw SystemError(concat("cannot make a pipe: ", std::strerror(errno)));
  std::pair<Descriptor, Descriptor> pipe{Descriptor(ends[0]), Descriptor(ends[1])};
  for (Descriptor* end : {&pipe.first, &pipe.second}) {
    if (end->get() > 2) continue;
    Descriptor higher(::fcntl(end->get(), F_DUPFD_CLOEXEC, 3));
    if (higher.get() < 0) throw SystemError(concat("cannot make a pipe: ", std::strerror(errno)));
    *end = std::move(higher);
  }
  ::fcntl(pipe.second.get(), F_SETPIPE_SZ, kPipeBytes);
  return pipe;
}

// The child lives and dies with its pipe. Ctrl-C reaches all processes of a terminal, but the trainer may want to
// finish its iteration and write a snapshot; so the child does not hear it, nor what a launcher sends to a whole job.
void block_polite_signals(posix_spawnattr_t& attributes) {
  sigset_t mask;
  sigemptyset(&mask);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2}) sigaddset(&mask, number);
  posix_spawnattr_setsigmask(&attributes, &mask);
  // What the trainer ignores would be ignored in the child as well.
  sigset_t defaults;
  sigemptyset(&defaults);
  for (const int number : {SIGPIPE, SIGCHLD, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}) sigaddset(&defaults, number);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

pid_t spawn(const fs::path& program, std::vector<std::string> arguments, int output) {
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  block_polite_signals(attributes);
  pid_t child = -1;
  const int code = ::posix_spawn(&child, program.c_str(), &actions, &attributes, raw.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (code != 0) throw SystemError(concat("cannot start ", program.string(), ": ", std::strerror(code)));
  return child;
}

std::string signal_name(int number) {
  switch (number) {
    case SIGBUS:
      return "SIGBUS";
    case SIGSEGV:
      return "SIGSEGV";
    case SIGABRT:
      return "SIGABRT";
    case SIGFPE:
      return "SIGFPE";
    case SIGILL:
      return "SIGILL";
    case SIGKILL:
      return "SIGKILL";
    default:
      return concat("signal ", number);
  }
}

// Returns when the child is dead, or at the deadline. Does not collect it.
void wait_for_death(pid_t child, std::chrono::milliseconds wait_max) {
  const Descriptor handle(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  pollfd waiting{handle.get(), POLLIN, 0};
  if (handle.get() >= 0) {
    ::poll(&waiting, 1, static_cast<int>(wait_max.count()));
  } else {  // Linux before 5.3: our child does not close its pipe and live on, so this ends
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT);
  }
}

bool is_executable(const fs::path& path) {
  std::error_code failure;
  return fs::is_regular_file(path, failure) && ::access(path.c_str(), X_OK) == 0;
}

std::vector<std::string> command_line(const fs::path& program, const RecordReaderOptions& options) {
  std::vector<std::string> words = {program.string(),
                                    "read",
                                    options.images ? "--images" : "--database",
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
  if (!options.images) return words;
  const ImageFiles& images = *options.images;
  words.insert(words.end(), {"--width", std::to_string(images.width), "--height", std::to_string(images.height)});
  // In one word with their names: they may begin with a dash.
  if (!images.prefix.empty()) words.push_back("--prefix=" + images.prefix);
  if (images.shuffle) {
    words.insert(words.end(), {"--shuffle", "--seed", std::to_string(images.seed), "--purpose=" + images.purpose});
  }
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

fs::path data_program() {
  constexpr const char* kVariable = "POSEIDON_DATA_PROGRAM";
  if (const char* given = std::getenv(kVariable); given != nullptr && *given != '\0') {
    if (!is_executable(given)) throw ConfigError(concat(kVariable, "=", given, " is not a program"));
    return given;
  }
  std::error_code failure;
  const fs::path folder = fs::read_symlink("/proc/self/exe", failure).parent_path();
  for (const fs::path& candidate : {folder / "poseidon-data", folder.parent_path() / "bin" / "poseidon-data"}) {
    if (is_executable(candidate)) return candidate;
  }
  throw ConfigError(concat("cannot find the program poseidon-data, which reads data bases: it is not in ",
                           folder.string(), "; build it (target poseidon-data), or set ", kVariable,
                           " to where it is"));
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

  std::uint64_t size() const { return size_; }
  int process() const { return process_; }
  const Record& peek();
  Record take();

 private:
  struct Frame {
    FrameHeader header;
    std::string key;
    std::string value;
  };

  Frame receive(Clock::time_point deadline);
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

  std::uint64_t size_ = 0;
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
  auto [reading, writing] = make_pipe();
  pipe_ = std::move(reading);
  process_ = spawn(program, command_line(program, options_), writing.get());
  writing.close();
  try {
    greet();
  } catch (...) {
    end();
    throw;
  }
}

void RecordReader::Child::greet() {
  const Frame frame = receive(Clock::now() + options_.wait_max);
  if (frame.header.kind == FrameKind::kError) fail(frame.value);
  if (frame.header.kind != FrameKind::kHello || frame.key != kHelloKey || frame.header.index == 0) {
    fail("the program poseidon-data is of another version than this one; build both anew");
  }
  size_ = frame.header.index;
}

const Record& RecordReader::Child::peek() {
  if (failure_) std::rethrow_exception(failure_);
  if (next_) return *next_;
  Frame frame = receive(Clock::now() + options_.wait_max);
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

RecordReader::Child::Frame RecordReader::Child::receive(Clock::time_point deadline) {
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
  if (process_ < 0) return 0;
  ::kill(process_,
         SIGKILL);  // does nothing to a child that has died already: until it is collected its id is not given away
  int status = 0;
  pid_t collected = -1;
  do {
    collected = ::waitpid(process_, &status, 0);
  } while (collected < 0 && errno == EINTR);
  process_ = -1;
  return collected < 0 ? 0 : status;
}

// "near record 812 (the last one read was 811, key 00000811_a.png)": places in the data base, or in the list's present
// order, not global indices.
std::string RecordReader::Child::place() const {
  if (size_ == 0) return "at its beginning";
  std::string text = concat("near record ", expected_ % size_);
  if (last_)
    text += concat(" (the last one read was ", last_->first % size_, ", key ", readable_key(last_->second), ")");
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
  const bool damage =
      number == SIGBUS || number == SIGSEGV || number == SIGABRT || number == SIGFPE || number == SIGILL;
  if (!damage) {
    fail<SystemError>(concat("the reader of ", source, " was ended by ", signal_name(number), " ", place(),
                             number == SIGKILL ? "; by somebody, or because memory is short" : ""));
  }
  if (options_.images) {
    fail(concat("the reader of ", source, " died of ", signal_name(number), " ", place(),
                "; one of the next images may be damaged"));
  }
  fail(concat(source, " is damaged ", place(), ": its reader died of ", signal_name(number),
              "; create the data base again"));
}

RecordReader::RecordReader(RecordReaderOptions options) : child_(std::make_unique<Child>(std::move(options))) {}
RecordReader::~RecordReader() = default;
RecordReader::RecordReader(RecordReader&&) noexcept = default;
RecordReader& RecordReader::operator=(RecordReader&&) noexcept = default;

std::uint64_t RecordReader::size() const {
  return child_->size();
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

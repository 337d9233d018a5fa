#include "runtime/real/host_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <mutex>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/file.h"
#include "base/text.h"

namespace poseidon::runtime::real {
namespace {

std::size_t page_bytes() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

Error system_error(const std::string& what) { return Error{ErrorCode::kSystem, base::concat(what, ": ", std::strerror(errno))}; }

// Maps `bytes` of the file from `offset` on, at a page's boundary. Page tables are filled in as pages are touched, piece by piece:
// all at once (MAP_POPULATE) would hold up the lane, and its heartbeats, for as long as that takes for a tensor of hundreds of MB.
std::byte* map_pages(int descriptor, std::uint64_t offset, std::size_t bytes) {
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, static_cast<off_t>(offset));
  return at == MAP_FAILED ? nullptr : static_cast<std::byte*>(at);
}

// How much the system could give now. What the file takes is nowhere limited by itself: asked for more than there is, the kernel
// would end processes to get it, and not refuse. SIZE_MAX where the system does not say.
std::size_t available_bytes() {
  std::ifstream lines("/proc/meminfo");
  for (std::string word; lines >> word;) {
    std::size_t kilobytes = 0;
    if (word == "MemAvailable:" && lines >> kilobytes) return kilobytes * 1024;
  }
  return SIZE_MAX;
}

// What is left of the limit of this container, in the two ways in which kernels tell it; SIZE_MAX without one.
std::size_t container_bytes() {
  const auto number = [](const char* path) -> std::optional<std::size_t> {
    std::size_t value = 0;
    if (std::ifstream(path) >> value) return value;
    return std::nullopt;  // not there, or "max"
  };
  for (const auto& [limit, use] : {std::pair("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
                                   std::pair("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes")}) {
    const std::optional<std::size_t> most = number(limit);
    const std::optional<std::size_t> used = number(use);
    if (most && used) return *most - std::min(*most, *used);
  }
  return SIZE_MAX;
}

template <typename Integer>
bool read_number(std::string_view text, Integer& number) {
  const auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  return failure == std::errc{} && stop == text.data() + text.size();
}

}  // namespace

std::string machine_identity() {
  constexpr std::size_t kBytesMax = 128;
  const Result<std::string> boot = base::read_file("/proc/sys/kernel/random/boot_id", kBytesMax);
  std::array<char, kBytesMax> processes{};
  if (!boot || ::readlink("/proc/self/ns/pid", processes.data(), processes.size() - 1) <= 0) return "";
  return base::concat(boot->substr(0, boot->find('\n')), " ", processes.data(), " ", ::geteuid());
}

// This process's file, and what has been given out of it.
class HostMemory::Segment {
 public:
  explicit Segment(int descriptor, std::uint64_t inode) : descriptor_(descriptor), inode_(inode) {}
  ~Segment() { ::close(descriptor_); }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  int descriptor() const { return descriptor_; }
  std::uint64_t inode() const { return inode_; }

  Result<std::byte*> take(std::size_t bytes) {
    const std::size_t page = page_bytes();
    const std::size_t whole = (bytes + page - 1) / page * page;
    const std::lock_guard lock(mutex_);
    const auto refused = [&] {
      return system_error(base::concat(base::readable_bytes(static_cast<double>(bytes)),
                                       " of shared memory for gradients cannot be had (beside ",
                                       base::readable_bytes(static_cast<double>(in_use_)),
                                       " in use); give the host or the container more memory, or use --per-host off"));
    };
    if (whole < bytes || whole > static_cast<std::size_t>(INT64_MAX) - end_) {
      errno = EFBIG;
      return refused();
    }
    if (whole > std::min(available_bytes(), container_bytes())) {
      errno = ENOMEM;
      return refused();
    }
    // Reserves the memory as well, so that nobody is killed for touching what is not there.
    int failure = 0;
    do {
      failure = ::fallocate(descriptor_, 0, static_cast<off_t>(end_), static_cast<off_t>(whole)) == 0 ? 0 : errno;
    } while (failure == EINTR);
    errno = failure;
    if (failure != 0) return refused();
    std::byte* const data = map_pages(descriptor_, end_, whole);
    if (data == nullptr) {
      const int why = errno;
      release_pages(end_, whole);
      errno = why;
      return refused();
    }
    given_[data] = {end_, whole};
    end_ += whole;
    in_use_ += whole;
    return data;
  }

  void give_back(std::byte* data) {
    const std::lock_guard lock(mutex_);
    const auto found = given_.find(data);
    ::munmap(data, found->second.bytes);
    release_pages(found->second.offset, found->second.bytes);
    in_use_ -= found->second.bytes;
    given_.erase(found);
  }

  std::optional<wire::HostPlace> place_of(const std::byte* data, std::size_t bytes) const {
    const std::lock_guard lock(mutex_);
    const auto after = given_.upper_bound(data);
    if (after == given_.begin()) return std::nullopt;
    const auto& [begin, place] = *std::prev(after);
    const std::size_t inside = static_cast<std::size_t>(data - begin);
    if (inside >= place.bytes || bytes > place.bytes - inside) return std::nullopt;
    return wire::HostPlace{place.offset + inside, bytes};
  }

 private:
  void release_pages(std::uint64_t offset, std::size_t bytes) {
    ::fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  }

  const int descriptor_;
  const std::uint64_t inode_;
  mutable std::mutex mutex_;
  std::uint64_t end_ = 0;                                // guarded by mutex_: of the file
  std::size_t in_use_ = 0;                               // guarded by mutex_
  std::map<const std::byte*, wire::HostPlace> given_;    // guarded by mutex_
};

Result<std::unique_ptr<HostMemory>> HostMemory::create() {
  const int descriptor = ::memfd_create("poseidon", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (descriptor < 0) return system_error("shared memory cannot be made");
  struct stat status {};
  if (::fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK) != 0 || ::fstat(descriptor, &status) != 0) {
    const Error error = system_error("shared memory cannot be sealed");
    ::close(descriptor);
    return error;
  }
  return std::unique_ptr<HostMemory>(new HostMemory(std::make_shared<Segment>(descriptor, status.st_ino)));
}

HostMemory::HostMemory(std::shared_ptr<Segment> segment) : segment_(std::move(segment)) {}

HostMemory::~HostMemory() {
  for (const auto& [member, peer] : peers_) {
    if (peer.descriptor >= 0) ::close(peer.descriptor);
  }
}

std::string HostMemory::address() const { return base::concat(segment_->descriptor(), ":", segment_->inode()); }

Status HostMemory::set_peers(const std::vector<Peer>& peers) {
  for (const Peer& peer : peers) {
    const std::size_t colon = peer.address.find(':');
    int descriptor = -1;
    OpenPeer open;
    if (peer.pid <= 0 || colon == std::string::npos || !read_number(std::string_view(peer.address).substr(0, colon), descriptor) ||
        descriptor < 0 || !read_number(std::string_view(peer.address).substr(colon + 1), open.inode)) {
      return Error{ErrorCode::kCorruptFrame, base::concat("member ", index(peer.member), " gives \"", peer.address,
                                                          "\" of process ", peer.pid, " as the address of its shared memory")};
    }
    open.path = base::concat("/proc/", peer.pid, "/fd/", descriptor);
    peers_.try_emplace(peer.member, std::move(open));  // told again, it is still the same and may be open
  }
  return {};
}

Result<std::shared_ptr<std::byte>> HostMemory::allocate(std::size_t bytes) {
  Result<std::byte*> data = segment_->take(std::max<std::size_t>(bytes, 1));
  if (!data) return data.error();
  return std::shared_ptr<std::byte>(*data, [segment = segment_](std::byte* given) { segment->give_back(given); });
}

std::optional<wire::HostPlace> HostMemory::place_of(const std::byte* data, std::size_t bytes) const {
  return segment_->place_of(data, bytes);
}

Result<std::shared_ptr<std::byte>> HostMemory::map(Member owner, const wire::HostPlace& place) {
  const auto found = peers_.find(owner);
  POSEIDON_CHECK(found != peers_.end(), "member ", index(owner), " is not of this host");
  OpenPeer& peer = found->second;
  const auto failed = [&](const std::string& what) {
    return system_error(base::concat("the shared memory of member ", index(owner), " cannot be ", what, " (", peer.path,
                                     "); where processes may not look into each other's /proc, use --per-host off"));
  };
  struct stat status {};
  if (peer.descriptor < 0) {
    const int descriptor = ::open(peer.path.c_str(), O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return failed("opened");
    // Another process may have got the number of one that has died.
    if (::fstat(descriptor, &status) != 0 || status.st_ino != peer.inode) {
      ::close(descriptor);
      errno = ESTALE;
      return failed("opened");
    }
    peer.descriptor = descriptor;
  }
  if (::fstat(peer.descriptor, &status) != 0) return failed("looked at");
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (place.bytes == 0 || place.bytes > size || place.offset > size - place.bytes) {
    return Error{ErrorCode::kCorruptFrame, base::concat("member ", index(owner), " names ", place.bytes, " bytes at ", place.offset,
                                                        " of its shared memory, which has ", size)};
  }
  const std::uint64_t page = page_bytes();
  const std::uint64_t begin = place.offset / page * page;
  const std::size_t bytes = static_cast<std::size_t>(place.offset - begin + place.bytes);
  std::byte* const data = map_pages(peer.descriptor, begin, bytes);
  if (data == nullptr) return failed("mapped");
  const std::shared_ptr<std::byte> mapping(data, [bytes](std::byte* at) { ::munmap(at, bytes); });
  return std::shared_ptr<std::byte>(mapping, data + (place.offset - begin));
}

}  // namespace poseidon::runtime::real

#include "collective/share_bytes.h"

#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "base/text.h"

namespace poseidon::collective {
namespace {

// One exchange, alive as long as a message of it is on its way.
class Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(Mailbox& mailbox, const ShareOptions& options, std::shared_ptr<const Bytes> own, SharedFn done)
      : mailbox_(mailbox), options_(options), own_(std::move(own)), done_(std::move(done)), sizes_(static_cast<std::size_t>(options.workers)),
        all_(static_cast<std::size_t>(options.workers)) {
    const std::uint64_t size = own_->size();
    std::memcpy(own_size_.data(), &size, sizeof size);
  }

  void start() {
    left_ = 1;  // this function itself
    for (std::int32_t rank = 0; rank < options_.workers; ++rank) {
      if (Rank{rank} == options_.self) continue;
      left_ += 3;
      mailbox_.receive(Rank{rank}, name(0), region(sizes_[index_of(rank)].data(), sizeof(std::uint64_t)),
                       [self = shared_from_this(), rank](const std::optional<Error>& failed) { self->on_size(rank, failed); });
      mailbox_.send(Rank{rank}, name(0), region(own_size_.data(), own_size_.size()), ender());
      // Only read from, in spite of the view's wish for memory that can be written.
      mailbox_.send(Rank{rank}, name(1), region(const_cast<std::byte*>(own_->data()), own_->size()), ender());
    }
    end(std::nullopt);
  }

 private:
  static std::size_t index_of(std::int32_t rank) { return static_cast<std::size_t>(rank); }
  static runtime::Region region(std::byte* data, std::size_t bytes) { return {data, bytes, {}, 0}; }
  MessageName name(std::uint64_t message) const { return {options_.channel, 2 * options_.number + message}; }
  Mailbox::DoneFn ender() {
    return [self = shared_from_this()](const std::optional<Error>& failed) { self->end(failed); };
  }

  void on_size(std::int32_t rank, const std::optional<Error>& failed) {
    if (failed) return end(failed);
    std::uint64_t size = 0;
    std::memcpy(&size, sizes_[index_of(rank)].data(), sizeof size);
    if (size > options_.bytes_max) {
      return end(Error{ErrorCode::kCorruptFrame, base::concat("rank ", rank, " announces ", size, " bytes where ", options_.bytes_max, " are the most")});
    }
    Bytes& memory = all_[index_of(rank)];
    memory.resize(size);
    ++left_;
    mailbox_.receive(Rank{rank}, name(1), region(memory.data(), size), ender());
    end(std::nullopt);
  }

  // One of the parts that `left_` counts is over.
  void end(const std::optional<Error>& failed) {
    if (failed && !failed_) {
      failed_ = failed;
      // Who has announced too much would wait for ever to be received.
      if (failed->code == ErrorCode::kCorruptFrame) mailbox_.fail(*failed);
    }
    if (--left_ > 0) return;
    if (failed_) return done_(*failed_);
    done_(std::move(all_));
  }

  Mailbox& mailbox_;
  ShareOptions options_;
  std::shared_ptr<const Bytes> own_;
  SharedFn done_;
  std::array<std::byte, sizeof(std::uint64_t)> own_size_{};
  std::vector<std::array<std::byte, sizeof(std::uint64_t)>> sizes_;
  std::vector<Bytes> all_;
  std::size_t left_ = 0;
  std::optional<Error> failed_;
};

}  // namespace

void share_bytes(Mailbox& mailbox, const ShareOptions& options, std::shared_ptr<const Bytes> own, SharedFn done) {
  std::make_shared<Exchange>(mailbox, options, std::move(own), std::move(done))->start();
}

}  // namespace poseidon::collective

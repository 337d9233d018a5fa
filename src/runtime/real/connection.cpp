#include "runtime/real/connection.h"

#include <asio/post.hpp>

#include <algorithm>

#include "base/text.h"

namespace poseidon::runtime::real {
namespace {

constexpr std::size_t kInboxBytes = 16 * 1024;
// After a frame at least this large the next one is probably large as well: read no more than its header ahead, so that its
// payload goes straight to its sink.
constexpr std::size_t kLargeFrameBytes = 8 * 1024;
constexpr std::size_t kIovMax = 64;
// Of one connection before the others of the lane get their turn.
constexpr int kReadsPerTurn = 16;
constexpr std::size_t kNoLanding = static_cast<std::size_t>(-1);

}  // namespace

iovec Connection::Outgoing::rest_of(std::size_t i) const {
  const std::byte* data = nullptr;
  std::size_t length = 0;
  if (i == 0) {
    data = header.data();
    length = header.size();
  } else if (i == 1) {
    data = table.data();
    length = table.size();
  } else {
    data = payload[i - 2].data();
    length = payload[i - 2].bytes;
  }
  const std::size_t done = i == slice ? offset : 0;
  return {const_cast<std::byte*>(data) + done, length - done};
}

Connection::Connection(std::unique_ptr<Stream> stream, ConnectionOwner& owner, Member peer, std::uint64_t job, Member self)
    : stream_(std::move(stream)), owner_(owner), peer_(peer), job_(job), self_(self), inbox_(kInboxBytes),
      inbox_limit_(kInboxBytes), drain_(wire::kPieceBytes) {}

void Connection::start() { wait_readable(); }

void Connection::wait_readable() {
  if (!open_ || state_ == State::kPaused) return;
  if (stream_->holds_unread()) {
    asio::post(stream_->socket().get_executor(), [self = shared_from_this()] {
      if (self->open_) self->read();
    });
    return;
  }
  stream_->socket().async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](const asio::error_code& failed) {
    if (!failed && self->open_) self->read();
  });
}

void Connection::wait_writable() {
  if (!open_ || waits_writable_) return;
  waits_writable_ = true;
  stream_->socket().async_wait(asio::ip::tcp::socket::wait_write, [self = shared_from_this()](const asio::error_code& failed) {
    self->waits_writable_ = false;
    if (!failed && self->open_) self->write();
  });
}

void Connection::send(Frame frame, Epoch epoch, SentFn on_sent) {
  if (!open_) {
    if (on_sent) on_sent();
    return;
  }
  wire::FrameHeader header;
  header.job = job_;
  header.epoch = epoch;
  header.sender = self_;
  header.credit = frame.credit;
  Outgoing out;
  if (frame.parts.size() == 1) {
    header.part = frame.parts.front();
  } else {
    out.table = wire::encode_parts(frame.parts);
    header.part.type = wire::FrameType::kFused;
    header.part.contributors = static_cast<std::uint32_t>(frame.parts.size());
    header.part.bytes = static_cast<std::uint32_t>(out.table.size());
    for (const wire::PartHeader& part : frame.parts) header.part.bytes += part.bytes;
  }
  const std::size_t bytes = header.part.bytes;
  out.header = wire::encode_header(header);
  out.payload = std::move(frame.payload);
  out.on_sent = std::move(on_sent);
  out_.push_back(std::move(out));
  if (writing_ || waits_writable_) return;
  if (bytes < kLargeFrameBytes) return write();
  // Large frames that the lane sends in one turn go out in one system call: fewer segments, and none of them with only a frame's
  // last bytes.
  waits_writable_ = true;
  asio::post(stream_->socket().get_executor(), [self = shared_from_this()] {
    self->waits_writable_ = false;
    if (self->open_) self->write();
  });
}

void Connection::write() {
  const auto self = shared_from_this();  // callbacks may drop the last other reference
  writing_ = true;
  while (open_ && !out_.empty()) {
    std::array<iovec, kIovMax> vectors;
    std::size_t count = 0;
    for (auto frame = out_.begin(); frame != out_.end() && count < kIovMax; ++frame) {
      for (std::size_t i = frame->slice; i < frame->slices() && count < kIovMax; ++i) {
        vectors[count] = frame->rest_of(i);
        if (vectors[count].iov_len > 0) ++count;
      }
    }
    const Result<std::size_t> written = stream_->write({vectors.data(), count});
    if (!written) {
      fail(written.error());
    } else if (*written == 0) {
      wait_writable();
      break;
    } else {
      bytes_.sent += *written;
      advance_written(*written);
    }
  }
  writing_ = false;
  if (!open_ || !out_.empty()) return;
  const Result<bool> flushed = stream_->flush();
  if (!flushed) return fail(flushed.error());
  if (!*flushed) return wait_writable();
  if (finished_) {
    close();
    std::exchange(finished_, nullptr)();
  }
}

void Connection::advance_written(std::size_t bytes) {
  while (!out_.empty()) {
    Outgoing& frame = out_.front();
    while (frame.slice < frame.slices()) {
      const std::size_t rest = frame.rest_of(frame.slice).iov_len;
      if (bytes < rest) {
        frame.offset += bytes;
        return;
      }
      bytes -= rest;
      ++frame.slice;
      frame.offset = 0;
    }
    const SentFn on_sent = std::move(frame.on_sent);
    out_.pop_front();
    if (on_sent) on_sent();
    if (!open_) return;
  }
}

void Connection::read() {
  const auto self = shared_from_this();
  for (int turn = 0; turn < kReadsPerTurn && open_ && state_ != State::kPaused; ++turn) {
    divert_revoked();
    std::array<iovec, kIovMax> vectors;
    std::size_t count = 0;
    std::size_t direct = 0;
    if (state_ == State::kTable) {
      vectors[count++] = {table_.data() + table_filled_, table_.size() - table_filled_};
      direct = table_.size() - table_filled_;
    } else {
      for (std::size_t i = target_; i < targets_.size() && count + 1 < kIovMax; ++i) {
        vectors[count++] = {targets_[i].data, targets_[i].bytes};
        direct += targets_[i].bytes;
      }
      const bool reaches_the_end = target_ + count == targets_.size();
      if (inbox_begin_ == inbox_end_) inbox_begin_ = inbox_end_ = 0;
      const std::size_t room = std::max(inbox_limit_, wire::kHeaderBytes) - std::min(inbox_end_, inbox_limit_);
      if (reaches_the_end && inbox_end_ < inbox_.size()) {
        vectors[count++] = {inbox_.data() + inbox_end_, std::min(room, inbox_.size() - inbox_end_)};
      }
    }
    std::size_t wanted = 0;
    for (std::size_t i = 0; i < count; ++i) wanted += vectors[i].iov_len;
    const Result<std::size_t> n = stream_->read({vectors.data(), count});
    if (!n) return fail(n.error());
    if (*n == 0) break;
    bytes_.received += *n;
    const std::size_t filled = std::min(*n, direct);
    inbox_end_ += *n - filled;
    fill(filled);
    if (const Status status = parse(); !status) return fail(status.error());
    // Less came than would have fitted, so there is no more now. In the middle of a frame the rest is so near that asking again
    // costs less than waiting does.
    if (*n < wanted && state_ == State::kHeader && inbox_begin_ == inbox_end_) break;
  }
  wait_readable();
}

// The stream has written `bytes` into the current table or targets.
void Connection::fill(std::size_t bytes) {
  if (state_ == State::kTable) {
    table_filled_ += bytes;
    return;
  }
  while (bytes > 0) {
    Target& target = targets_[target_];
    const std::size_t step = std::min(bytes, target.bytes);
    target.data += step;
    target.bytes -= step;
    bytes -= step;
    if (target.bytes == 0) ++target_;
  }
}

// Takes what is in the inbox, and ends frames that are complete.
Status Connection::parse() {
  while (open_ && state_ != State::kPaused) {
    const std::size_t waiting = inbox_end_ - inbox_begin_;
    const std::byte* const bytes = inbox_.data() + inbox_begin_;
    switch (state_) {
      case State::kHeader: {
        if (waiting < wire::kHeaderBytes) {
          if (inbox_begin_ > 0) {
            std::memmove(inbox_.data(), bytes, waiting);
            inbox_begin_ = 0;
            inbox_end_ = waiting;
          }
          return {};
        }
        Result<wire::FrameHeader> header = wire::decode_header(std::span<const std::byte, wire::kHeaderBytes>(bytes, wire::kHeaderBytes));
        if (!header) return header.error();
        header_ = *header;
        inbox_begin_ += wire::kHeaderBytes;
        if (const Status status = begin_frame(); !status) return status;
        break;
      }
      case State::kTable: {
        const std::size_t step = std::min(waiting, table_.size() - table_filled_);
        std::copy_n(bytes, step, table_.data() + table_filled_);
        inbox_begin_ += step;
        table_filled_ += step;
        if (table_filled_ < table_.size()) return {};
        if (const Status status = begin_payload(table_); !status) return status;
        break;
      }
      case State::kPayload: {
        divert_revoked();
        std::size_t left = waiting;
        while (left > 0 && target_ < targets_.size()) {
          const std::size_t step = std::min(left, targets_[target_].bytes);
          std::copy_n(inbox_.data() + inbox_begin_, step, targets_[target_].data);
          inbox_begin_ += step;
          left -= step;
          fill(step);
        }
        if (target_ < targets_.size()) return {};
        end_frame();
        break;
      }
      case State::kPaused:
        break;
    }
  }
  return {};
}

Status Connection::begin_frame() {
  if (header_.job != job_ || header_.sender != peer_) {
    return Error{ErrorCode::kCorruptFrame, base::concat("a frame of member ", index(header_.sender), " of another link or job")};
  }
  const bool is_data = wire::is_data(header_.part.type);
  if (is_data && header_.epoch > owner_.epoch()) {
    state_ = State::kPaused;
    return {};
  }
  inbox_limit_ = header_.part.bytes >= kLargeFrameBytes ? wire::kHeaderBytes : kInboxBytes;
  parts_.clear();
  landings_.clear();
  targets_.clear();
  target_ = 0;
  if (wire::table_bytes(header_) > 0) {
    table_.resize(wire::table_bytes(header_));
    table_filled_ = 0;
    state_ = State::kTable;
    return {};
  }
  return begin_payload({});
}

Status Connection::begin_payload(std::span<const std::byte> table) {
  state_ = State::kPayload;
  if (!wire::is_data(header_.part.type)) {
    body_.resize(header_.part.bytes);
    if (!body_.empty()) targets_.push_back({body_.data(), body_.size(), kNoLanding});
    return {};
  }
  if (header_.part.type == wire::FrameType::kFused) {
    Result<std::vector<wire::PartHeader>> parts = wire::decode_parts(header_, table);
    if (!parts) return parts.error();
    parts_ = std::move(*parts);
  } else {
    parts_.assign(1, header_.part);
  }
  const bool is_stale = header_.epoch < owner_.epoch();
  for (const wire::PartHeader& part : parts_) {
    if (is_stale) {
      if (part.bytes > 0) targets_.push_back({drain_.data(), part.bytes, kNoLanding});
      continue;
    }
    Result<Landing> landing = owner_.sinks().land(peer_, part);
    if (!landing) return landing.error();
    std::size_t held = 0;
    for (const Slice& slice : landing->slices()) {
      held += slice.bytes;
      targets_.push_back({slice.data() != nullptr ? slice.data() : drain_.data(), slice.bytes, landings_.size()});
    }
    if (held != part.bytes) {
      return Error{ErrorCode::kCorruptFrame, base::concat("a part of ", part.bytes, " bytes where ", held, " were expected")};
    }
    landings_.push_back(std::move(*landing));
  }
  return {};
}

// After a revocation no byte may reach the sink's memory any more.
void Connection::divert_revoked() {
  for (std::size_t i = target_; i < targets_.size(); ++i) {
    Target& target = targets_[i];
    if (target.landing != kNoLanding && landings_[target.landing].revoked()) {
      target.data = drain_.data();
      target.landing = kNoLanding;
    }
  }
}

void Connection::end_frame() {
  state_ = State::kHeader;
  targets_.clear();
  target_ = 0;
  const bool is_data = wire::is_data(header_.part.type);
  owner_.on_frame(peer_, header_, parts_);
  if (!is_data) {
    owner_.on_body(peer_, header_, std::move(body_));
    body_ = {};
    return;
  }
  const std::vector<Landing> landings = std::move(landings_);
  landings_.clear();
  for (const Landing& landing : landings) {
    if (open_) owner_.sinks().landed(peer_, landing);
  }
}

void Connection::resume() {
  if (!open_ || state_ != State::kPaused || header_.epoch > owner_.epoch()) return;
  state_ = State::kHeader;
  Status status = begin_frame();
  if (status) status = parse();
  if (!status) return fail(status.error());
  wait_readable();
}

void Connection::finish(std::function<void()> done) {
  finished_ = std::move(done);
  if (!open_) {
    std::exchange(finished_, nullptr)();
  } else if (out_.empty() && !writing_) {
    write();
  }
}

void Connection::fail(const Error& why) {
  if (!open_) return;
  const auto self = shared_from_this();
  close();
  if (finished_) {
    std::exchange(finished_, nullptr)();
    return;
  }
  owner_.on_closed(peer_, why);
}

void Connection::abandon() { close(); }

void Connection::close() {
  if (!open_) return;
  open_ = false;
  stream_->say_goodbye();
  asio::error_code ignored;
  stream_->socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  stream_->socket().close(ignored);
  // Nothing is borrowed any more.
  for (Outgoing& frame : std::exchange(out_, {})) {
    if (frame.on_sent) frame.on_sent();
  }
}

}  // namespace poseidon::runtime::real

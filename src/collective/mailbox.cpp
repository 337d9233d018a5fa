#include "collective/mailbox.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace poseidon::collective {

using runtime::Layout;
using runtime::Region;
using wire::FrameType;
using wire::PartHeader;

Mailbox::Mailbox(runtime::Runtime& runtime, runtime::Transport& transport, MailboxOptions options)
    : runtime_(runtime), transport_(transport), options_(std::move(options)),
      watch_(runtime, options_.limits,
             {.longest = [this] { return longest_wait(); },
              .overdue = [this](runtime::Duration age, std::size_t count) { return overdue(age, count); },
              .give_up = [this](const Error& error) { fail(error); }}) {
  for (const FrameType type : {FrameType::kMessage, FrameType::kReady}) {
    transport_.set_acceptor(type, [this, alive = alive_](Member from, const PartHeader& part) -> Result<runtime::Sink> {
      if (!*alive) return Error{ErrorCode::kAborted, "the mailbox is closed"};
      return accept(from, part);
    });
  }
}

Mailbox::~Mailbox() {
  *alive_ = false;
  for (const auto& [key, incoming] : incoming_) {
    if (incoming.sink) transport_.revoke(*incoming.sink);
  }
}

std::optional<Rank> Mailbox::rank_of(Member member) const {
  const auto found = std::find(options_.members.begin(), options_.members.end(), member);
  if (found == options_.members.end()) return std::nullopt;
  return Rank{static_cast<std::int32_t>(found - options_.members.begin())};
}

void Mailbox::send(Rank to, MessageName name, const Region& bytes, DoneFn done) {
  if (failed_) return done(*failed_);
  const Key key{to, name};
  POSEIDON_CHECK(to != options_.self, "a message to oneself");
  const bool is_new = outgoing_.try_emplace(key, Outgoing{bytes, std::move(done), runtime_.now()}).second;
  POSEIDON_CHECK(is_new && !leaving_.contains(key), "message ", name.number, " of channel ", name.channel, " is sent twice");
  const auto ready = ready_.find(key);
  if (ready == ready_.end()) return;
  const std::uint64_t expected = ready->second;
  ready_.erase(ready);
  leave(key, expected);
}

void Mailbox::receive(Rank from, MessageName name, const Region& memory, DoneFn done) {
  if (failed_) return done(*failed_);
  const Key key{from, name};
  POSEIDON_CHECK(from != options_.self, "a message from oneself");
  const auto [entry, is_new] = incoming_.try_emplace(key, Incoming{memory.bytes, std::nullopt, std::move(done), runtime_.now()});
  POSEIDON_CHECK(is_new, "message ", name.number, " of channel ", name.channel, " is received twice");
  const Member member = options_.members[static_cast<std::size_t>(index(from))];
  if (memory.bytes > 0) {
    entry->second.sink = transport_.expect(member, {FrameType::kMessage, TensorId{name.channel}, name.number},
                                           {0, memory.bytes, Layout::contiguous(memory, 0, memory.bytes),
                                            [this, alive = alive_, key](Member, const PartHeader& part) {
                                              if (*alive) on_part(key, part.bytes);
                                            }});
  }
  runtime::Frame frame;
  frame.parts.push_back(
      {.type = FrameType::kReady, .tensor = TensorId{name.channel}, .iteration = name.number, .offset = memory.bytes});
  transport_.send({member, runtime::Lane{0}}, std::move(frame), nullptr);
}

Result<runtime::Sink> Mailbox::accept(Member from, const PartHeader& part) {
  const auto corrupt = [&](const char* what) {
    return Error{ErrorCode::kCorruptFrame,
                 base::concat("member ", index(from), " sent ", what, " (message ", part.iteration, " of channel ", index(part.tensor), ")")};
  };
  const std::optional<Rank> rank = rank_of(from);
  if (!rank || *rank == options_.self) return corrupt("a message, and is no other worker");
  if (part.bytes > 0) return corrupt("a message for which nobody here was ready");
  const Key key{*rank, {index(part.tensor), part.iteration}};
  const bool is_ready = part.type == FrameType::kReady;
  if (is_ready && ready_.contains(key)) return corrupt("twice that it is ready");
  return runtime::Sink{part.offset, part.offset, {}, [this, alive = alive_, key, is_ready](Member, const PartHeader& arrived) {
                         if (!*alive) return;
                         if (is_ready) return on_ready(key, arrived.offset);
                         on_part(key, 0);
                       }};
}

void Mailbox::on_ready(const Key& key, std::uint64_t bytes) {
  if (failed_) return;
  if (!outgoing_.contains(key)) {
    ready_.emplace(key, bytes);
    return;
  }
  leave(key, bytes);
}

void Mailbox::leave(const Key& key, std::uint64_t expected) {
  Outgoing message = std::move(outgoing_.extract(key).mapped());
  if (message.bytes.bytes != expected) {
    // The other end waits for what never comes: the job is over there as here.
    const Error error{ErrorCode::kInvalid,
                      base::concat("rank ", index(options_.self), " sends ", message.bytes.bytes, " bytes where rank ", index(key.peer), " waits for ",
                                   expected, ": the workers do not call the same collective operations with tensors of the same sizes")};
    message.done(error);
    return fail(error);
  }
  leaving_.emplace(key, std::move(message.done));
  const Member member = options_.members[static_cast<std::size_t>(index(key.peer))];
  std::size_t at = 0;
  do {
    const std::size_t bytes = std::min(wire::kPieceBytes, message.bytes.bytes - at);
    runtime::Frame frame;
    frame.parts.push_back({.type = FrameType::kMessage,
                           .tensor = TensorId{key.name.channel},
                           .iteration = key.name.number,
                           .offset = at,
                           .bytes = static_cast<std::uint32_t>(bytes)});
    if (bytes > 0) frame.payload.push_back({message.bytes, at, bytes});
    at += bytes;
    runtime::SentFn on_sent;
    if (at == message.bytes.bytes) {
      on_sent = [this, alive = alive_, key] {
        if (!*alive) return;
        const DoneFn done = std::move(leaving_.extract(key).mapped());
        done(failed_);
      };
    }
    transport_.send({member, runtime::Lane{0}}, std::move(frame), std::move(on_sent));
  } while (at < message.bytes.bytes);
}

void Mailbox::on_part(const Key& key, std::size_t bytes) {
  const auto found = incoming_.find(key);
  if (found == incoming_.end()) return;  // an empty message that nobody waits for, or the job is over
  found->second.bytes_left -= bytes;
  if (found->second.bytes_left > 0) return;
  const DoneFn done = std::move(found->second.done);
  incoming_.erase(found);
  done(std::nullopt);
}

void Mailbox::fail(const Error& why) {
  if (failed_) return;
  failed_ = why;
  for (const auto& [key, message] : std::exchange(outgoing_, {})) message.done(why);
  for (const auto& [key, message] : std::exchange(incoming_, {})) {
    if (message.sink) transport_.revoke(*message.sink);
    message.done(why);
  }
  ready_.clear();
}

std::vector<std::string> Mailbox::overdue(runtime::Duration age, std::size_t count) const {
  std::vector<std::string> sentences;
  const auto add = [&](const Key& key, runtime::Time since, const char* what) {
    const runtime::Duration waited = runtime_.now() - since;
    if (waited < age || sentences.size() >= count) return;
    sentences.push_back(base::concat("rank ", index(options_.self), what, index(key.peer), " in a collective operation (message ", key.name.number,
                                     " of channel ", key.name.channel, ") since ",
                                     base::readable_seconds(std::chrono::duration<double>(waited).count())));
  };
  for (const auto& [key, message] : incoming_) add(key, message.since, " waits for rank ");
  for (const auto& [key, message] : outgoing_) add(key, message.since, " has something for rank ");
  return sentences;
}

runtime::Duration Mailbox::longest_wait() const {
  runtime::Time oldest = runtime_.now();
  for (const auto& [key, message] : incoming_) oldest = std::min(oldest, message.since);
  for (const auto& [key, message] : outgoing_) oldest = std::min(oldest, message.since);
  return runtime_.now() - oldest;
}

}  // namespace poseidon::collective

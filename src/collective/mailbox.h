// Messages between workers, of any size, each called by a number: what a framework's collective operations are made of.
//
// Both ends call a message by the same name (a channel and a number), each name is used once between two members and for each
// direction, and both know its size. It leaves when the receiver has named the memory for it and said so: whoever is ahead waits, and
// nothing is ever stored on the way. So no cycle of waits can arise but one that the callers make, by naming messages that the other
// end never names.
//
// These bytes do not pass the send scheduler and take no credit: who moves gradients by collective operations hands none to a Session at
// the same time, or moves few in this way (share_bytes.h), so there is little to overtake.
//
// Lane only.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "poseidon/error.h"
#include "runtime/runtime.h"
#include "runtime/transport.h"
#include "session/wait_watch.h"

namespace poseidon::collective {

struct MessageName {
  std::uint32_t channel = 0;  // a group of workers; the groups of one job have different ones
  std::uint64_t number = 0;
  friend std::strong_ordering operator<=>(const MessageName&, const MessageName&) = default;
};

struct MailboxOptions {
  Rank self{0};
  std::vector<Member> members;  // by rank; links to all of them are up
  session::WaitLimits limits{std::chrono::seconds(2), std::chrono::minutes(30)};
};

class Mailbox {
 public:
  // Null: the message is out of the sender's memory, or in place at the receiver. Called once, on the lane.
  using DoneFn = std::function<void(const std::optional<Error>& failed)>;

  // Takes the transport's frames of kMessage and kReady. Both outlive the mailbox.
  Mailbox(runtime::Runtime& runtime, runtime::Transport& transport, MailboxOptions options);
  ~Mailbox();

  // `bytes` is borrowed until `done`. To another rank. What both ends did not give the same size fails both.
  void send(Rank to, MessageName name, const runtime::Region& bytes, DoneFn done);
  // What is there when `done` is called with an error is undefined.
  void receive(Rank from, MessageName name, const runtime::Region& memory, DoneFn done);
  // Ends all waits, now and later: the job is over.
  void fail(const Error& why);
  // Whom waits of more than `age` are for, at most `count` of them.
  std::vector<std::string> overdue(runtime::Duration age, std::size_t count) const;

 private:
  struct Key {
    Rank peer{0};
    MessageName name;
    friend std::strong_ordering operator<=>(const Key&, const Key&) = default;
  };
  struct Outgoing {
    runtime::Region bytes;
    DoneFn done;
    runtime::Time since{};
  };
  struct Incoming {
    std::size_t bytes_left = 0;
    std::optional<runtime::SinkId> sink;  // none for an empty message
    DoneFn done;
    runtime::Time since{};
  };

  Result<runtime::Sink> accept(Member from, const wire::PartHeader& part);
  void on_ready(const Key& key, std::uint64_t bytes);
  void on_part(const Key& key, std::size_t bytes);
  // Ready or not, the receiver's size is `expected`.
  void leave(const Key& key, std::uint64_t expected);
  std::optional<Rank> rank_of(Member member) const;
  runtime::Duration longest_wait() const;

  runtime::Runtime& runtime_;
  runtime::Transport& transport_;
  const MailboxOptions options_;
  std::map<Key, Outgoing> outgoing_;         // whose receiver is not ready
  std::map<Key, std::uint64_t> ready_;       // receivers that wait for what has not been handed in here, and for how many bytes
  std::map<Key, Incoming> incoming_;
  // Handed to the transport, not out of the caller's memory yet: the transport borrows them even when the job is over.
  std::map<Key, DoneFn> leaving_;
  std::optional<Error> failed_;
  session::WaitWatch watch_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace poseidon::collective

// How two members come to trust a link: each proves that it knows the job's secret, and neither ever sends it.
//
//   connector                                acceptor
//   HELLO     acceptor, lane, nonce A  ->
//                                      <-    CHALLENGE  nonce B, HMAC(secret, "poseidon acceptor" + transcript)
//   PROOF     HMAC(secret, "poseidon connector" + transcript)  ->
//                                      <-    WELCOME    (or REFUSAL with a reason, at any point)
//
// The transcript is: version, job, connector, acceptor, lane, nonce A, nonce B; so a recorded proof serves no other link, and
// one side's proof cannot be sent back as the other's. Pure: bytes in, bytes out; deadlines and sockets are the transport's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "wire/frame.h"

namespace poseidon::wire {

// A job's shared secret, and the job number that follows from it.
struct JobKey {
  std::vector<std::byte> secret;  // at least 16 bytes
  std::uint64_t job = 0;          // not secret: it stands in every frame
};
// Derives `job` from the secret, so that a launcher has to hand out only one thing.
JobKey job_key(std::vector<std::byte> secret);

// One side of one handshake. Feed it every frame that arrives until finished() or an error.
class Handshake {
 public:
  // The side that opened the connection, and wants to speak to `peer`.
  static Handshake connector(const JobKey& key, Member self, Member peer, std::uint32_t lane);
  // The side that was called. `admits` says whether this member may have a link on this lane now, or why not.
  using AdmitFn = std::function<Status(Member peer, std::uint32_t lane)>;
  static Handshake acceptor(const JobKey& key, Member self, AdmitFn admits);

  // The connector's first bytes; empty for the acceptor.
  std::vector<std::byte> start();
  // The bytes to send in answer to a frame. An error ends the link; where the other side is owed an explanation, `farewell`
  // holds a refusal to send first.
  Result<std::vector<std::byte>> on_frame(const FrameHeader& header, std::span<const std::byte> body);
  const std::vector<std::byte>& farewell() const { return farewell_; }
  // A refusal for whoever is not heard out. Of the reason 400 bytes are kept.
  std::vector<std::byte> refusal(std::string reason) const;

  bool connects() const { return connects_; }
  bool finished() const { return finished_; }
  Member peer() const { return peer_; }  // valid once finished
  std::uint32_t lane() const { return lane_; }

 private:
  Handshake(const JobKey& key, Member self) : key_(key), self_(self) {}
  Result<std::vector<std::byte>> on_hello(const FrameHeader& header, std::span<const std::byte> body);
  Result<std::vector<std::byte>> on_challenge(const FrameHeader& header, std::span<const std::byte> body);
  Result<std::vector<std::byte>> on_proof(std::span<const std::byte> body);
  Error refuse(const std::string& reason);
  std::vector<std::byte> frame(FrameType type, std::span<const std::byte> body) const;
  std::vector<std::byte> proof(const char* side) const;

  JobKey key_;
  Member self_;
  bool connects_ = false;
  AdmitFn admits_;
  Member peer_{0};
  std::uint32_t lane_ = 0;
  std::vector<std::byte> connector_nonce_;
  std::vector<std::byte> acceptor_nonce_;
  FrameType expected_ = FrameType::kHello;  // the only frame that may come next (a refusal may always come)
  bool finished_ = false;
  std::vector<std::byte> farewell_;
};

}  // namespace poseidon::wire

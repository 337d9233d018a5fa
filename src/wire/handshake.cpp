#include "wire/handshake.h"

#include <algorithm>
#include <cstring>

#include "base/checksum.h"
#include "base/text.h"

namespace poseidon::wire {
namespace {

constexpr std::size_t kNonceBytes = 32;
constexpr std::size_t kProofBytes = 32;
constexpr std::size_t kReasonBytesMax = 400;

void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

void append(std::vector<std::byte>& out, std::string_view text) {
  append(out, std::as_bytes(std::span(text.data(), text.size())));
}

template <typename T>
void append_number(std::vector<std::byte>& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

Error not_allowed(std::string text) { return Error{ErrorCode::kCorruptFrame, std::move(text)}; }

}  // namespace

JobKey job_key(std::vector<std::byte> secret) {
  const std::string_view label = "poseidon job number";
  const base::Digest digest = base::hmac_sha256(secret, std::as_bytes(std::span(label.data(), label.size())));
  JobKey key{std::move(secret), 0};
  for (std::size_t i = 0; i < 8; ++i) key.job |= std::uint64_t{static_cast<std::uint8_t>(digest[i])} << (8 * i);
  return key;
}

Handshake Handshake::connector(const JobKey& key, Member self, Member peer, std::uint32_t lane) {
  Handshake shake(key, self);
  shake.connects_ = true;
  shake.peer_ = peer;
  shake.lane_ = lane;
  shake.connector_nonce_ = base::random_bytes(kNonceBytes);
  shake.expected_ = FrameType::kChallenge;
  return shake;
}

Handshake Handshake::acceptor(const JobKey& key, Member self, AdmitFn admits) {
  Handshake shake(key, self);
  shake.admits_ = std::move(admits);
  shake.acceptor_nonce_ = base::random_bytes(kNonceBytes);
  shake.expected_ = FrameType::kHello;
  return shake;
}

std::vector<std::byte> Handshake::frame(FrameType type, std::span<const std::byte> body) const {
  FrameHeader header;
  header.job = key_.job;
  header.sender = self_;
  header.part.type = type;
  header.part.bytes = static_cast<std::uint32_t>(body.size());
  std::vector<std::byte> bytes;
  append(bytes, encode_header(header));
  append(bytes, body);
  return bytes;
}

std::vector<std::byte> Handshake::proof(const char* side) const {
  const Member connector = connects_ ? self_ : peer_;
  const Member acceptor = connects_ ? peer_ : self_;
  std::vector<std::byte> transcript;
  append(transcript, std::string_view(side));
  append_number(transcript, kVersion);
  append_number(transcript, key_.job);
  append_number(transcript, index(connector));
  append_number(transcript, index(acceptor));
  append_number(transcript, lane_);
  append(transcript, connector_nonce_);
  append(transcript, acceptor_nonce_);
  const base::Digest digest = base::hmac_sha256(key_.secret, transcript);
  return {digest.begin(), digest.end()};
}

std::vector<std::byte> Handshake::start() {
  if (!connects_) return {};
  std::vector<std::byte> body;
  append_number(body, index(peer_));
  append_number(body, lane_);
  append(body, connector_nonce_);
  return frame(FrameType::kHello, body);
}

std::vector<std::byte> Handshake::refusal(std::string reason) const {
  reason.resize(std::min(reason.size(), kReasonBytesMax));
  return frame(FrameType::kRefusal, std::as_bytes(std::span(reason.data(), reason.size())));
}

Error Handshake::refuse(const std::string& reason) {
  farewell_ = refusal(reason);
  return Error{ErrorCode::kRefused, reason};
}

Result<std::vector<std::byte>> Handshake::on_frame(const FrameHeader& header, std::span<const std::byte> body) {
  if (finished_) return not_allowed("a handshake frame came after the handshake");
  if (header.part.type == FrameType::kRefusal) {
    std::string reason(reinterpret_cast<const char*>(body.data()), std::min(body.size(), kReasonBytesMax));
    for (char& c : reason) c = c >= ' ' && c <= '~' ? c : '?';  // it came from outside and goes to a terminal
    return Error{ErrorCode::kRefused, reason};
  }
  if (header.part.type != expected_) {
    return not_allowed(base::concat("a handshake frame of type ", static_cast<int>(header.part.type), " instead of ",
                                    static_cast<int>(expected_)));
  }
  if (header.job != key_.job) {
    return refuse("this is another job: its members have a different secret (two jobs may share a host, but not a port)");
  }
  switch (header.part.type) {
    case FrameType::kHello:
      return on_hello(header, body);
    case FrameType::kChallenge:
      return on_challenge(header, body);
    case FrameType::kProof:
      return on_proof(body);
    default:
      finished_ = true;  // kWelcome
      return std::vector<std::byte>{};
  }
}

Result<std::vector<std::byte>> Handshake::on_hello(const FrameHeader& header, std::span<const std::byte> body) {
  if (body.size() != 8 + kNonceBytes) return not_allowed("a hello of the wrong length");
  std::uint32_t numbers[2] = {0, 0};
  for (std::size_t i = 0; i < 8; ++i) numbers[i / 4] |= static_cast<std::uint32_t>(body[i]) << (8 * (i % 4));
  if (Member{numbers[0]} != self_) {
    return refuse(base::concat("this is member ", index(self_), ", not member ", numbers[0]));
  }
  peer_ = header.sender;
  lane_ = numbers[1];
  connector_nonce_.assign(body.begin() + 8, body.end());
  std::vector<std::byte> answer = acceptor_nonce_;
  append(answer, proof("poseidon acceptor"));
  expected_ = FrameType::kProof;
  return frame(FrameType::kChallenge, answer);
}

Result<std::vector<std::byte>> Handshake::on_challenge(const FrameHeader& header, std::span<const std::byte> body) {
  if (body.size() != kNonceBytes + kProofBytes) return not_allowed("a challenge of the wrong length");
  if (header.sender != peer_) return not_allowed(base::concat("member ", index(header.sender), " answered for member ", index(peer_)));
  acceptor_nonce_.assign(body.begin(), body.begin() + kNonceBytes);
  if (!base::equal_in_constant_time(body.subspan(kNonceBytes), proof("poseidon acceptor"))) {
    return refuse(base::concat("member ", index(peer_), " does not know the job's secret"));
  }
  expected_ = FrameType::kWelcome;
  return frame(FrameType::kProof, proof("poseidon connector"));
}

Result<std::vector<std::byte>> Handshake::on_proof(std::span<const std::byte> body) {
  if (!base::equal_in_constant_time(body, proof("poseidon connector"))) {
    return refuse(base::concat("member ", index(peer_), " does not know the job's secret"));
  }
  // Only now, so that a stranger learns nothing about who is in the job.
  if (const Status admitted = admits_(peer_, lane_); !admitted) return refuse(admitted.error().message);
  finished_ = true;
  return frame(FrameType::kWelcome, {});
}

}  // namespace poseidon::wire

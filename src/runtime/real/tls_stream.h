// TLS 1.3 over a TCP socket, keyed by the job's secret (docs/decisions/0020-tls-by-the-jobs-secret.md).
//
// Both sides prove that they know the secret, by an external pre-shared key that is derived from it, and agree on fresh keys by
// an elliptic-curve exchange: who learns the secret later cannot read what was recorded. There are no certificates.
//
// Out: bytes are sealed in records of up to 16 KiB, several of which go to the kernel in one write. In: one read takes several
// records, and what they hold goes to the reader's memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/real/stream.h"
#include "wire/handshake.h"

typedef struct ssl_ctx_st SSL_CTX;          // OpenSSL's own names for its types, so that its headers stay in the .cpp
typedef struct ssl_st SSL;
typedef struct ssl_session_st SSL_SESSION;

namespace poseidon::runtime::real {

struct TlsOptions {
  // A sender takes a new key after so many bytes, each record counted as a full one: by default after 2^22 of them. The bound for
  // AES-GCM is 2^24.5 records under one key (RFC 8446, 5.5).
  std::uint64_t rekey_bytes = std::uint64_t{1} << 36;
};

// What all TLS links of a process share. May be used by several lanes at once.
class TlsContext {
 public:
  static Result<std::shared_ptr<const TlsContext>> create(const wire::JobKey& key, TlsOptions options);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

 private:
  friend class TlsStream;
  TlsContext() = default;

  SSL_CTX* ssl_ = nullptr;
  TlsOptions options_;
  std::string identity_;        // of the key: names the job, not secret
  std::vector<std::byte> key_;  // 32 bytes, derived from the secret
};

class TlsStream : public Stream {
 public:
  enum class Side { kConnector, kAcceptor };
  TlsStream(asio::ip::tcp::socket socket, std::shared_ptr<const TlsContext> context, Side side);
  ~TlsStream() override;

  bool is_encrypted() const override { return true; }
  Result<bool> establish() override;
  Result<std::size_t> write(std::span<const iovec> from) override;
  Result<bool> flush() override;
  bool holds_unsent() const override { return sealed_begin_ < sealed_.size(); }
  Result<std::size_t> read(std::span<const iovec> into) override;
  bool holds_unread() const override { return !is_starved_; }
  void say_goodbye() override;

 private:
  friend class TlsContext;
  struct Callbacks;  // what OpenSSL calls

  // One record.
  Status seal(const std::byte* data, std::size_t bytes);
  // OpenSSL has failed in an operation that gave `result`: what that means. Nothing: it wants to read.
  std::optional<Error> failure(int result);

  std::shared_ptr<const TlsContext> context_;
  SSL* ssl_ = nullptr;
  bool is_established_ = false;
  bool other_job_ = false;           // acceptor: the connector named another key
  std::optional<Error> over_;        // what every further call answers

  std::vector<std::byte> arrived_;   // [arrived_begin_, arrived_end_) came from the socket and is not opened
  std::size_t arrived_begin_ = 0;
  std::size_t arrived_end_ = 0;
  bool is_starved_ = false;          // the last read took all that there was
  bool is_at_end_ = false;           // the socket has been closed by the other side
  std::optional<Error> socket_error_;

  std::vector<std::byte> gathered_;  // a record's contents, where they lie in several places
  std::vector<std::byte> sealed_;    // from sealed_begin_ on not the kernel's yet
  std::size_t sealed_begin_ = 0;
  std::uint64_t sealed_with_key_ = 0;  // bytes, were all records full
};

}  // namespace poseidon::runtime::real

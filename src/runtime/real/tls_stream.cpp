#include "runtime/real/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/checksum.h"
#include "base/text.h"

namespace poseidon::runtime::real {
namespace {

constexpr std::size_t kRecordBytes = 16 * 1024;           // contents of a record, at most (RFC 8446, 5.1)
constexpr std::size_t kRecordExtra = 5 + 1 + 16;          // its header, the type within, the tag
// What is sealed, or read, at a time. A piece and its header fit: more would only lie in the way of something urgent.
constexpr std::size_t kRecordsAtATime = 5;
constexpr std::size_t kSealedBytesMax = kRecordsAtATime * kRecordBytes;
constexpr std::size_t kArrivedBytes = kRecordsAtATime * (kRecordBytes + kRecordExtra);

// TLS_AES_128_GCM_SHA256, by its number in RFC 8446, B.4. The key is tied to SHA-256, and so serves ChaCha20-Poly1305 too.
constexpr unsigned char kCipher[] = {0x13, 0x01};

// The connector's order counts: AES where its processor has it.
const char* cipher_suites() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("aes")) return "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
#endif
  return "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
}

const char* reason(unsigned long code) {
  const char* const text = ERR_reason_error_string(code);
  return text != nullptr ? text : "no reason given";
}

}  // namespace

struct TlsStream::Callbacks {
  static TlsStream& of(SSL* ssl) { return *static_cast<TlsStream*>(SSL_get_app_data(ssl)); }
  static TlsStream& of(BIO* bio) { return *static_cast<TlsStream*>(BIO_get_data(bio)); }

  // The job's key as OpenSSL wants it, for the caller to free; null when memory is out.
  static SSL_SESSION* session(SSL* ssl) {
    const std::vector<std::byte>& key = of(ssl).context_->key_;
    SSL_SESSION* const session = SSL_SESSION_new();
    if (session == nullptr) return nullptr;
    if (SSL_SESSION_set1_master_key(session, reinterpret_cast<const unsigned char*>(key.data()), key.size()) == 1 &&
        SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, kCipher)) == 1 &&
        SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1) {
      return session;
    }
    SSL_SESSION_free(session);
    return nullptr;
  }

  // Connector: which key to offer.
  static int use(SSL* ssl, const EVP_MD*, const unsigned char** identity, std::size_t* length, SSL_SESSION** out) {
    const std::string& name = of(ssl).context_->identity_;
    *identity = reinterpret_cast<const unsigned char*>(name.data());
    *length = name.size();
    *out = session(ssl);
    return *out != nullptr ? 1 : 0;
  }

  // Acceptor: the key that was offered, if it is the job's.
  static int find(SSL* ssl, const unsigned char* identity, std::size_t length, SSL_SESSION** out) {
    const std::string& name = of(ssl).context_->identity_;
    *out = nullptr;
    if (std::string_view(reinterpret_cast<const char*>(identity), length) != name) {
      of(ssl).other_job_ = true;
      return 1;  // no such key, so the handshake fails
    }
    *out = session(ssl);
    return *out != nullptr ? 1 : 0;
  }

  // OpenSSL wants bytes of the socket.
  static int read(BIO* bio, char* to, int bytes) {
    TlsStream& self = of(bio);
    BIO_clear_retry_flags(bio);
    if (self.arrived_begin_ == self.arrived_end_) {
      ssize_t n = 0;
      do {
        n = ::recv(self.socket().native_handle(), self.arrived_.data(), self.arrived_.size(), MSG_DONTWAIT);
      } while (n < 0 && errno == EINTR);
      if (n == 0) self.is_at_end_ = true;
      if (n < 0 && would_block()) BIO_set_retry_read(bio);
      else if (n < 0) self.socket_error_ = broken_link("receiving");
      if (n <= 0) return static_cast<int>(n);
      self.arrived_begin_ = 0;
      self.arrived_end_ = static_cast<std::size_t>(n);
    }
    const std::size_t step = std::min(static_cast<std::size_t>(bytes), self.arrived_end_ - self.arrived_begin_);
    std::memcpy(to, self.arrived_.data() + self.arrived_begin_, step);
    self.arrived_begin_ += step;
    return static_cast<int>(step);
  }

  // OpenSSL has sealed a record. It goes out with others, in flush().
  static int write(BIO* bio, const char* from, int bytes) {
    TlsStream& self = of(bio);
    const auto* const data = reinterpret_cast<const std::byte*>(from);
    self.sealed_.insert(self.sealed_.end(), data, data + bytes);
    return bytes;
  }

  static long control(BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_EOF) return of(bio).is_at_end_ ? 1 : 0;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
  }

  static BIO* bio(TlsStream* self) {
    static const BIO_METHOD* const method = [] {
      BIO_METHOD* const made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "poseidon link");
      BIO_meth_set_read(made, read);
      BIO_meth_set_write(made, write);
      BIO_meth_set_ctrl(made, control);
      return made;
    }();
    BIO* const bio = BIO_new(method);
    BIO_set_data(bio, self);
    BIO_set_init(bio, 1);
    return bio;
  }
};

Result<std::shared_ptr<const TlsContext>> TlsContext::create(const wire::JobKey& key, TlsOptions options) {
  std::shared_ptr<TlsContext> context(new TlsContext());
  context->options_ = options;
  const std::string_view label = "poseidon TLS 1.3 key";
  const base::Digest digest = base::hmac_sha256(key.secret, std::as_bytes(std::span(label.data(), label.size())));
  context->key_.assign(digest.begin(), digest.end());
  context->identity_ = base::concat("poseidon job ", key.job);
  SSL_CTX* const ssl = context->ssl_ = SSL_CTX_new(TLS_method());
  // A link lives as long as its process, so nothing is ever resumed. Without certificates only the job's key opens a link.
  const bool made = ssl != nullptr && SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1 &&
                    SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) == 1 && SSL_CTX_set_ciphersuites(ssl, cipher_suites()) == 1 &&
                    SSL_CTX_set1_groups_list(ssl, "X25519:P-256") == 1 && SSL_CTX_set_num_tickets(ssl, 0) == 1;
  if (!made) {
    return Error{ErrorCode::kSystem, base::concat("OpenSSL cannot do TLS 1.3 as this job wants it: ", reason(ERR_peek_last_error()))};
  }
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_clear_options(ssl, SSL_OP_ENABLE_MIDDLEBOX_COMPAT | SSL_OP_ALLOW_NO_DHE_KEX | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_psk_use_session_callback(ssl, TlsStream::Callbacks::use);
  SSL_CTX_set_psk_find_session_callback(ssl, TlsStream::Callbacks::find);
  return std::shared_ptr<const TlsContext>(std::move(context));
}

TlsContext::~TlsContext() {
  SSL_CTX_free(ssl_);
  OPENSSL_cleanse(key_.data(), key_.size());
}

TlsStream::TlsStream(asio::ip::tcp::socket socket, std::shared_ptr<const TlsContext> context, Side side)
    : Stream(std::move(socket)), context_(std::move(context)), ssl_(SSL_new(context_->ssl_)), arrived_(kArrivedBytes) {
  gathered_.reserve(kRecordBytes);
  BIO* const bio = ssl_ != nullptr ? Callbacks::bio(this) : nullptr;
  if (bio == nullptr) {
    over_ = Error{ErrorCode::kSystem, "out of memory for a TLS link"};
    return;
  }
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_app_data(ssl_, this);
  if (side == Side::kAcceptor) {
    SSL_set_accept_state(ssl_);
  } else {
    SSL_set_connect_state(ssl_);
    SSL_set_verify(ssl_, SSL_VERIFY_PEER, nullptr);  // whoever shows a certificate instead is turned away: none is trusted
  }
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

std::optional<Error> TlsStream::failure(int result) {
  const int kind = SSL_get_error(ssl_, result);
  if (kind == SSL_ERROR_WANT_READ) return std::nullopt;
  if (kind == SSL_ERROR_ZERO_RETURN) return closed_link();
  const unsigned long code = ERR_peek_last_error();
  const int why = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  const bool is_alert = why >= SSL_AD_REASON_OFFSET;  // one that the other side has sent
  ERR_clear_error();
  if (socket_error_) return socket_error_;
  if (is_at_end_) {
    Error cut = closed_link();
    cut.message += is_established_ ? " in the middle of TLS, without its farewell: it died, or somebody cut the link"
                                   : " before the TLS handshake was over";
    return cut;
  }
  if (!is_established_ && (other_job_ || why == SSL_AD_REASON_OFFSET + SSL_AD_HANDSHAKE_FAILURE)) {
    return Error{ErrorCode::kRefused,
                 "TLS: this is another job: its members have a different secret (two jobs may share a host, but not a port)"};
  }
  if (is_alert) {
    return Error{ErrorCode::kPeerLost, base::concat("the other side ended TLS: ", SSL_alert_desc_string_long(why - SSL_AD_REASON_OFFSET))};
  }
  return Error{ErrorCode::kCorruptFrame,
               base::concat("TLS: what came is not what the other side has sent; somebody has changed it, or the link is broken (",
                            reason(code), ")")};
}

Result<bool> TlsStream::establish() {
  if (over_) return *over_;
  if (is_established_) return flush();
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) {
    over_ = failure(result);
    const Result<bool> sent = flush();  // an alert, where it has failed
    if (over_) return *over_;
    if (!sent) return sent.error();
    return false;
  }
  // TLS calls a key that both sides had before a session that is used again. Without it the other side has proved nothing.
  if (SSL_session_reused(ssl_) != 1) {
    over_ = Error{ErrorCode::kRefused, "TLS: the other side did not prove that it knows the job's secret"};
    return *over_;
  }
  is_established_ = true;
  return flush();
}

Status TlsStream::seal(const std::byte* data, std::size_t bytes) {
  if (sealed_with_key_ >= context_->options_.rekey_bytes) {
    SSL_key_update(ssl_, SSL_KEY_UPDATE_NOT_REQUESTED);  // fails only where one is under way already
    sealed_with_key_ = 0;
  }
  ERR_clear_error();
  std::size_t written = 0;
  const int result = SSL_write_ex(ssl_, data, bytes, &written);
  if (result == 1 && written == bytes) {
    sealed_with_key_ += kRecordBytes;
    return {};
  }
  over_ = failure(result);
  if (!over_) over_ = Error{ErrorCode::kPeerLost, "TLS: the link cannot be written to"};
  return *over_;
}

Result<std::size_t> TlsStream::write(std::span<const iovec> from) {
  if (over_) return *over_;
  Result<bool> sent = flush();
  if (!sent) return sent.error();
  if (!*sent) return std::size_t{0};
  std::size_t taken = 0;
  for (const iovec& place : from) {
    const std::byte* data = static_cast<const std::byte*>(place.iov_base);
    std::size_t left = place.iov_len;
    while (left > 0 && taken < kSealedBytesMax) {
      std::size_t step = std::min(left, kRecordBytes - gathered_.size());
      step = std::min(step, kSealedBytesMax - taken);
      Status sealed;
      if (step == kRecordBytes) {
        sealed = seal(data, step);
      } else {
        gathered_.insert(gathered_.end(), data, data + step);
        if (gathered_.size() == kRecordBytes) {
          sealed = seal(gathered_.data(), gathered_.size());
          gathered_.clear();
        }
      }
      if (!sealed) return sealed.error();
      data += step;
      left -= step;
      taken += step;
    }
  }
  if (!gathered_.empty()) {
    const Status sealed = seal(gathered_.data(), gathered_.size());
    gathered_.clear();
    if (!sealed) return sealed.error();
  }
  sent = flush();
  if (!sent) return sent.error();
  return taken;
}

Result<bool> TlsStream::flush() {
  while (holds_unsent()) {
    const ssize_t n = ::send(socket().native_handle(), sealed_.data() + sealed_begin_, sealed_.size() - sealed_begin_,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && would_block()) return false;
    if (n < 0) return broken_link("sending");
    sealed_begin_ += static_cast<std::size_t>(n);
  }
  sealed_.clear();
  sealed_begin_ = 0;
  return true;
}

Result<std::size_t> TlsStream::read(std::span<const iovec> into) {
  if (over_) return *over_;
  std::size_t done = 0;
  is_starved_ = false;
  for (const iovec& place : into) {
    std::byte* data = static_cast<std::byte*>(place.iov_base);
    std::size_t left = place.iov_len;
    while (left > 0) {
      ERR_clear_error();
      std::size_t n = 0;
      const int result = SSL_read_ex(ssl_, data, left, &n);
      if (result == 1) {
        data += n;
        left -= n;
        done += n;
        continue;
      }
      over_ = failure(result);
      is_starved_ = !over_;
      // What OpenSSL has to say to the other side: an alert, where it has failed. The bytes that were right come first.
      static_cast<void>(flush().ok());
      if (over_ && done == 0) return *over_;
      return done;
    }
  }
  return done;
}

void TlsStream::say_goodbye() {
  if (!is_established_ || over_) return;
  ERR_clear_error();
  SSL_shutdown(ssl_);
  static_cast<void>(flush().ok());
}

}  // namespace poseidon::runtime::real

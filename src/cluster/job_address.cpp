#include "cluster/job_address.h"

#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdlib>

#include "base/file.h"
#include "base/quantity.h"
#include "base/text.h"
#include "plan/lanes.h"
#include "runtime/real/address.h"

namespace poseidon::cluster {
namespace {

constexpr int kNodesMax = 65'536;
constexpr std::size_t kSecretBytesMin = 16;
constexpr std::size_t kSecretBytesMax = 4096;

Error broken_contract(const std::string& text) {
  return Error{ErrorCode::kInvalid,
               base::concat(text, " (a launcher must set POSEIDON_RANK, POSEIDON_WORLD_SIZE, POSEIDON_COORDINATOR=host:port and "
                                  "POSEIDON_SECRET_FILE)")};
}

Result<int> integer(const char* name, int least, int most) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return broken_contract(base::concat(name, " is not set"));
  int value = 0;
  const char* const end = text + std::string_view(text).size();
  const auto [stop, failure] = std::from_chars(text, end, value);
  if (failure != std::errc{} || stop != end || value < least || value > most) {
    return broken_contract(base::concat(name, " is \"", text, "\", it must be from ", least, " to ", most));
  }
  return value;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown host";
}

}  // namespace

Result<std::optional<JobAddress>> job_from_environment() {
  if (std::getenv("POSEIDON_RANK") == nullptr) return std::optional<JobAddress>();
  JobAddress job;
  Result<int> size = integer("POSEIDON_WORLD_SIZE", 1, kNodesMax);
  if (!size) return size.error();
  job.workers = *size;
  if (std::getenv("POSEIDON_SERVERS") != nullptr) {
    Result<int> servers = integer("POSEIDON_SERVERS", 0, kNodesMax - job.workers);
    if (!servers) return servers.error();
    job.servers = *servers;
  }
  const char* const role = std::getenv("POSEIDON_ROLE");
  const bool is_server = role != nullptr && std::string_view(role) == "server";
  if (role != nullptr && !is_server && std::string_view(role) != "worker") {
    return broken_contract(base::concat("POSEIDON_ROLE is \"", role, "\", it must be worker or server"));
  }
  if (is_server && job.servers == 0) return broken_contract("POSEIDON_ROLE is server, but POSEIDON_SERVERS says that there are none");
  Result<int> number = integer("POSEIDON_RANK", 0, (is_server ? job.servers : job.workers) - 1);
  if (!number) return number.error();
  job.rank = Rank{is_server ? job.workers + *number : *number};
  if (std::getenv("POSEIDON_LANES") != nullptr) {
    Result<int> lanes = integer("POSEIDON_LANES", 1, static_cast<int>(plan::kLanesMax));
    if (!lanes) return lanes.error();
    job.lanes = static_cast<std::size_t>(*lanes);
  }
  if (const char* const staging = std::getenv("POSEIDON_STAGING")) {
    Result<std::size_t> bytes = base::parse_bytes(staging);
    if (!bytes) return broken_contract("POSEIDON_STAGING: " + bytes.error().message);
    job.staging_bytes_max = *bytes;
  }
  const char* const where = std::getenv("POSEIDON_COORDINATOR");
  const std::string text = where == nullptr ? "" : where;
  const std::size_t colon = text.rfind(':');
  int port = 0;
  if (colon != std::string::npos) std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  if (colon == std::string::npos || port < 1 || port > 65'535) {
    return broken_contract(base::concat("POSEIDON_COORDINATOR is \"", text, "\", it must be host:port"));
  }
  job.coordinator = {text.substr(0, colon), static_cast<std::uint16_t>(port)};
  const char* const file = std::getenv("POSEIDON_SECRET_FILE");
  if (file == nullptr) return broken_contract("POSEIDON_SECRET_FILE is not set");
  Result<std::string> secret = base::read_file(file, kSecretBytesMax);
  if (!secret) return broken_contract(base::concat("the job's secret: ", secret.error().message));
  if (secret->size() < kSecretBytesMin) return broken_contract(base::concat(file, " holds fewer than ", kSecretBytesMin, " bytes of secret"));
  const std::byte* const bytes = reinterpret_cast<const std::byte*>(secret->data());
  job.secret.assign(bytes, bytes + secret->size());
  const char* const tls = std::getenv("POSEIDON_TLS");
  const std::string_view wish = tls == nullptr ? "0" : tls;
  if (wish != "0" && wish != "1") return broken_contract(base::concat("POSEIDON_TLS is \"", wish, "\", it must be 0 or 1"));
  job.tls = wish == "1";
  return std::optional<JobAddress>(std::move(job));
}

Result<JobLink> open_job_link(runtime::real::RealLane& lane, const JobAddress& job) {
  const Result<std::string> address = runtime::real::local_address_towards(job.coordinator);
  if (!address) return address.error();
  const auto nodes = static_cast<std::uint32_t>(job.workers + job.servers);
  JobLink link{.tcp = {.key = wire::job_key(job.secret),
                       .self = Member{static_cast<std::uint32_t>(index(job.rank))},
                       .listen_host = *address,
                       .listen_port = 0,
                       .tls = job.tls ? std::optional(runtime::real::TlsOptions{}) : std::nullopt,
                       .admits = [nodes](Member peer) -> Status {
                         if (index(peer) < nodes) return {};
                         return Error{ErrorCode::kRefused, base::concat("the job has no member ", index(peer))};
                       }}};
  Result<std::unique_ptr<runtime::real::TcpTransport>> transport = runtime::real::TcpTransport::open(lane, link.tcp);
  if (!transport) return transport.error();
  link.transport = std::move(*transport);
  link.self = {.member = link.tcp.self,
               .rank = job.rank,
               .host = host_name(),
               .pid = ::getpid(),
               .endpoints = {{*address, link.transport->port()}}};
  if (job.is_server()) link.self.server = static_cast<std::uint32_t>(index(job.rank) - job.workers);
  return link;
}

}  // namespace poseidon::cluster

#include "runtime/real/address.h"

#include <asio/ip/udp.hpp>

#include "base/text.h"

namespace poseidon::runtime::real {

Result<std::string> local_address_towards(const Endpoint& endpoint) {
  using asio::ip::udp;
  asio::io_context loop;
  asio::error_code failed;
  const auto found = udp::resolver(loop).resolve(endpoint.host, std::to_string(endpoint.port), failed);
  for (const auto& candidate : found) {
    // Connecting a datagram socket chooses a route, and with it our address.
    udp::socket socket(loop);
    socket.connect(candidate.endpoint(), failed);
    if (failed) continue;
    const udp::endpoint local = socket.local_endpoint(failed);
    if (!failed) return local.address().to_string();
  }
  return Error{ErrorCode::kNotFound, base::concat("cannot reach ", endpoint.host, ":", endpoint.port, ": ",
                                                  failed ? failed.message() : "the name has no address")};
}

}  // namespace poseidon::runtime::real

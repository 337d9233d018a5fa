#include "launch/reach.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>

#include "base/text.h"

namespace poseidon::launch {
namespace {

// Of the network's byte order; empty: the text is no address.
std::vector<unsigned char> bytes_of(const std::string& text) {
  std::array<unsigned char, 16> bytes{};
  if (::inet_pton(AF_INET, text.c_str(), bytes.data()) == 1) return {bytes.begin(), bytes.begin() + 4};
  if (::inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1) return {bytes.begin(), bytes.end()};
  return {};
}

// Of all interfaces that are up.
std::vector<OwnAddress> addresses(int family) {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return {};
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
  std::vector<OwnAddress> found;
  for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != family || (one->ifa_flags & IFF_UP) == 0) continue;
    std::array<char, INET6_ADDRSTRLEN> text{};
    const void* const raw = family == AF_INET ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr)
                                              : static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(one->ifa_addr)->sin6_addr);
    if (::inet_ntop(family, raw, text.data(), text.size()) != nullptr) found.push_back({one->ifa_name, text.data()});
  }
  return found;
}

}  // namespace

std::string shell_quoted(std::string_view word) {
  const auto is_plain = [](char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9') ||
           std::string_view("/._-=:,@%+").find(letter) != std::string_view::npos;
  };
  if (!word.empty() && std::all_of(word.begin(), word.end(), is_plain)) return std::string(word);
  std::string quoted = "'";
  for (const char letter : word) {
    if (letter == '\'') {
      quoted += "'\\''";
    } else {
      quoted += letter;
    }
  }
  return quoted + "'";
}

std::vector<std::string> agent_command(const std::string& host, const ReachOptions& options) {
  std::vector<std::string> command = options.ssh;
  // A job cannot wait for somebody to type; a host that has gone is noticed within a minute.
  for (const char* setting : {"BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4"}) {
    command.insert(command.end(), {"-o", setting});
  }
  command.push_back("-T");
  if (!options.user.empty()) command.insert(command.end(), {"-l", options.user});
  if (!options.key.empty()) command.insert(command.end(), {"-i", options.key});
  const std::string start = base::concat("exec ", shell_quoted(options.program), " agent");
  command.push_back(host);
  command.push_back(options.virtualenv.empty() ? start : base::concat(". ", shell_quoted(options.virtualenv + "/bin/activate"), " && ", start));
  return command;
}

bool is_this_host(const std::string& name) {
  if (name.find('@') != std::string::npos) return false;  // as somebody else
  if (name == "localhost") return true;
  std::array<char, 256> own{};
  if (::gethostname(own.data(), own.size() - 1) == 0 && name == own.data()) return true;
  const std::vector<unsigned char> bytes = bytes_of(name);
  if (bytes.size() == 4 && bytes[0] == 127) return true;
  for (const int family : {AF_INET, AF_INET6}) {
    for (const OwnAddress& one : addresses(family)) {
      if (!bytes.empty() && bytes_of(one.address) == bytes) return true;
    }
  }
  return false;
}

Result<Network> Network::parse(const std::string& text) {
  const std::size_t slash = text.find('/');
  Network network;
  network.bytes_ = bytes_of(text.substr(0, slash));
  const auto most = static_cast<unsigned>(8 * network.bytes_.size());
  network.bits_ = most;
  bool is_right = most > 0;
  if (slash != std::string::npos) {
    const char* const end = text.data() + text.size();
    const auto [stop, failure] = std::from_chars(text.data() + slash + 1, end, network.bits_);
    is_right = is_right && failure == std::errc{} && stop == end && network.bits_ <= most;
  }
  if (!is_right) return Error{ErrorCode::kInvalid, base::concat("\"", text, "\" is no network: it is written as 10.0.0.0/8")};
  return network;
}

bool Network::contains(const std::string& address) const {
  const std::vector<unsigned char> bytes = bytes_of(address);
  if (bytes.size() != bytes_.size()) return false;
  for (unsigned bit = 0; bit < bits_; ++bit) {
    const unsigned mask = 0x80U >> (bit % 8);
    if (((bytes[bit / 8] ^ bytes_[bit / 8]) & mask) != 0) return false;
  }
  return true;
}

std::vector<OwnAddress> own_addresses() {
  std::vector<OwnAddress> found = addresses(AF_INET);
  std::erase_if(found, [](const OwnAddress& one) { return one.address.starts_with("127."); });
  return found;
}

}  // namespace poseidon::launch

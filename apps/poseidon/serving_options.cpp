#include "apps/poseidon/serving_options.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>

#include "base/text.h"

namespace poseidon::app {
namespace {

constexpr int kServersMax = 1024;

bool is_this_host(const std::string& name) {
  std::array<char, 256> own{};
  if (::gethostname(own.data(), own.size() - 1) == 0 && name == own.data()) return true;
  return name == "localhost" || name == "127.0.0.1" || name == "::1";
}

Error wrong(const std::string& text) { return Error{ErrorCode::kInvalid, "--servers: " + text}; }

}  // namespace

Result<int> parse_servers(const std::string& text) {
  const bool is_number = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  int count = 0;
  if (is_number) {
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), count);
    if (failure != std::errc{} || count > kServersMax) return wrong(base::concat(text, " are too many, at most ", kServersMax, " can be started"));
    return count;
  }
  std::stringstream hosts(text);
  for (std::string host; std::getline(hosts, host, ',');) {
    if (host.empty()) return wrong(base::concat("\"", text, "\" is neither a number nor a list of hosts"));
    if (!is_this_host(host)) {
      return wrong(base::concat("\"", host, "\" is not this host; servers on other hosts are started by a cluster launcher, as ",
                                "`poseidon serve` with POSEIDON_ROLE=server"));
    }
    if (++count > kServersMax) return wrong(base::concat("these are too many, at most ", kServersMax, " can be started"));
  }
  if (count == 0) return wrong("it needs a number, or hosts separated by commas");
  return count;
}

void ServingOptions::describe(CLI::App& app) {
  app.add_option("--servers", servers,
                 "dedicated servers, which sum gradients and train nothing: how many, or their hosts separated by commas (today all "
                 "of them this one)")
      ->capture_default_str();
  app.add_flag("--no-colocated", no_colocated, "only the dedicated servers serve, and no worker does");
}

Status ServingOptions::check() {
  Result<int> count = parse_servers(servers);
  if (!count) return count.error();
  if (no_colocated && *count == 0) return Error{ErrorCode::kInvalid, "--no-colocated leaves nobody who serves: give --servers as well"};
  serving = {*count, !no_colocated};
  return {};
}

}  // namespace poseidon::app

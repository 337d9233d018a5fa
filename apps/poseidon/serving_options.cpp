#include "apps/poseidon/serving_options.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/text.h"
#include "launch/hosts.h"
#include "launch/reach.h"

namespace poseidon::app {
namespace {

constexpr int kServersMax = 1024;

Error wrong(const std::string& text) { return Error{ErrorCode::kInvalid, "--servers: " + text}; }
Error too_many(const std::string& text) { return wrong(base::concat(text, " are too many, at most ", kServersMax, " can be started")); }

// "2".
Result<int> parse_number(const std::string& text, bool on_other_hosts) {
  int count = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (failure != std::errc{} || count > kServersMax) return too_many(text);
  if (on_other_hosts && count > 0) {
    return wrong(base::concat("on which hosts? --servers gpu1,gpu2 names one for each of ", count));
  }
  return count;
}

// "localhost,localhost".
Result<std::vector<std::string>> parse_hosts(const std::string& text, bool on_other_hosts) {
  std::vector<std::string> hosts;
  std::stringstream entries(text);
  for (std::string host; std::getline(entries, host, ',');) {
    if (!launch::is_host(host)) return wrong(base::concat("\"", text, "\" is neither a number nor a list of hosts"));
    if (!on_other_hosts && !launch::is_this_host(host)) {
      return wrong(base::concat("\"", host, "\" is not this host; `poseidon train` starts servers elsewhere where --hosts or --hostfile says on which hosts to train"));
    }
    hosts.push_back(host);
  }
  if (hosts.empty()) return wrong("it needs a number, or hosts separated by commas");
  if (hosts.size() > kServersMax) return too_many("these");
  return hosts;
}

}  // namespace

void ServingOptions::describe(CLI::App& app) {
  app.add_option("--servers", servers,
                 "dedicated servers, which sum gradients and train nothing: how many here, or their hosts separated by commas")
      ->capture_default_str();
  app.add_flag("--no-colocated", no_colocated, "only the dedicated servers serve, and no worker does");
}

Status ServingOptions::check(bool on_other_hosts) {
  const bool is_number = !servers.empty() && std::all_of(servers.begin(), servers.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (is_number) {
    const Result<int> count = parse_number(servers, on_other_hosts);
    if (!count) return count.error();
    serving.servers = *count;
  } else {
    Result<std::vector<std::string>> named = parse_hosts(servers, on_other_hosts);
    if (!named) return named.error();
    hosts = std::move(*named);
    serving.servers = static_cast<int>(hosts.size());
  }
  if (no_colocated && serving.servers == 0) return Error{ErrorCode::kInvalid, "--no-colocated leaves nobody who serves: give --servers as well"};
  serving.colocated = !no_colocated;
  return {};
}

}  // namespace poseidon::app

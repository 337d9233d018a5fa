#include "launch/hosts.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "base/text.h"

namespace poseidon::launch {
namespace {

Error invalid(std::string message) { return {ErrorCode::kInvalid, std::move(message)}; }

std::optional<int> number_of(std::string_view text) {
  int number = 0;
  const auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc{} || stop != text.data() + text.size()) return std::nullopt;
  return number;
}

bool is_name_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-' || c == ':' || c == '%';
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t begin = line.find_first_not_of(" \t\r");
    if (begin == line.npos) return words;
    line.remove_prefix(begin);
    const std::size_t end = std::min(line.find_first_of(" \t\r"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

// So many workers on one host.
struct Entry {
  std::string host;
  int slots = 1;
};

Result<int> parse_slots(std::string_view text, std::string_view of) {
  const std::optional<int> slots = number_of(text);
  if (!slots || *slots < 1 || *slots > static_cast<int>(kWorkersMax)) {
    return invalid(base::concat("\"", text, "\" slots of \"", of, "\": it must be a number from 1 to ", kWorkersMax));
  }
  return *slots;
}

// "host", "host:4", "[fe80::1]", "[fe80::1]:4". Two colons or more without brackets are an IPv6 address.
Result<Entry> parse_entry(std::string_view text) {
  Entry entry;
  std::string_view host = text;
  std::optional<std::string_view> slots;
  const std::size_t bracket = text.find('[');
  const std::size_t closing = text.rfind(']');
  if (bracket != text.npos && closing != text.npos && closing > bracket) {
    const std::string_view rest = text.substr(closing + 1);
    if (!rest.empty() && rest.front() != ':') return invalid(base::concat("\"", text, "\" is no host: after ] comes :slots or nothing"));
    if (!rest.empty()) slots = rest.substr(1);
    entry.host = base::concat(text.substr(0, bracket), text.substr(bracket + 1, closing - bracket - 1));
    host = entry.host;
  } else if (std::count(text.begin(), text.end(), ':') == 1) {
    host = text.substr(0, text.find(':'));
    slots = text.substr(text.find(':') + 1);
  }
  if (!is_host(host)) return invalid(base::concat("\"", text, "\" is no host: write it as HOST or HOST:SLOTS"));
  entry.host = std::string(host);
  if (slots) {
    Result<int> count = parse_slots(*slots, host);
    if (!count) return count.error();
    entry.slots = *count;
  }
  return entry;
}

// Hosts in the order in which they are first named, each with the slots of all its entries.
Result<Placement> place(const std::vector<Entry>& entries) {
  std::vector<Entry> hosts;
  std::map<std::string, std::size_t> known;
  for (const Entry& entry : entries) {
    const auto [found, is_new] = known.emplace(entry.host, hosts.size());
    if (is_new) {
      hosts.push_back(entry);
    } else {
      hosts[found->second].slots += entry.slots;
    }
  }
  Placement placement;
  for (const Entry& host : hosts) {
    if (placement.size() + static_cast<std::size_t>(host.slots) > kWorkersMax) {
      return invalid(base::concat("more than ", kWorkersMax, " workers in all"));
    }
    placement.insert(placement.end(), static_cast<std::size_t>(host.slots), host.host);
  }
  return placement;
}

// A line of one of the first three styles.
Result<Entry> parse_line(const std::vector<std::string_view>& words) {
  Result<Entry> entry = parse_entry(words.front());
  for (std::size_t w = 1; w < words.size() && entry; ++w) {
    const std::size_t equals = words[w].find('=');
    const std::string_view key = words[w].substr(0, equals);
    if (equals != words[w].npos && (key == "max_slots" || key == "max-slots")) continue;
    if (equals == words[w].npos || key != "slots") {
      return invalid(base::concat("\"", words[w], "\" after the host \"", words.front(),
                                  "\": a line is HOST, HOST:SLOTS, HOST slots=N, or ID ADDRESS PORT"));
    }
    if (entry->host != words.front()) return invalid(base::concat("\"", words.front(), "\" and \"", words[w], "\" both say how many slots; keep one"));
    Result<int> slots = parse_slots(words[w].substr(equals + 1), entry->host);
    if (!slots) return slots.error();
    entry->slots = *slots;
  }
  return entry;
}

struct Numbered {
  int id = 0;
  std::string host;
};

bool is_numbered(const std::vector<std::string_view>& words) {
  return words.size() == 3 && number_of(words[0]) && words[1].find('=') == std::string_view::npos &&
         words[2].find('=') == std::string_view::npos;
}

Result<Numbered> parse_numbered(const std::vector<std::string_view>& words) {
  if (!is_numbered(words)) return invalid("this file numbers its hosts, so every line must be ID ADDRESS PORT");
  const Numbered line{*number_of(words[0]), std::string(words[1])};
  if (line.id < 0 || line.id >= static_cast<int>(kWorkersMax)) {
    return invalid(base::concat("id ", words[0], ": it must be from 0 to ", kWorkersMax - 1));
  }
  if (!is_host(line.host)) return invalid(base::concat("\"", line.host, "\" is no host"));
  const std::optional<int> port = number_of(words[2]);
  if (!port || *port < 1 || *port > 65'535) return invalid(base::concat("\"", words[2], "\" is no port: it must be from 1 to 65535"));
  return line;
}

}  // namespace

bool is_host(std::string_view text) {
  if (const std::size_t at = text.find('@'); at != text.npos) {
    const std::string_view user = text.substr(0, at);
    if (user.empty() || user.front() == '-' || !std::all_of(user.begin(), user.end(), is_name_character)) return false;
    text.remove_prefix(at + 1);
  }
  return !text.empty() && text.size() <= 253 && text.front() != '-' && std::all_of(text.begin(), text.end(), is_name_character);
}

Result<Placement> parse_host_list(std::string_view text) {
  std::vector<Entry> entries;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    Result<Entry> entry = parse_entry(text.substr(begin, end - begin));
    if (!entry) return entry.error();
    entries.push_back(std::move(*entry));
    begin = end + 1;
  }
  return place(entries);
}

Result<Placement> parse_hostfile(std::string_view text, const std::string& name) {
  std::vector<Entry> entries;
  std::map<int, std::string> numbered;
  bool is_first = true;
  bool ids = false;
  int line_number = 0;
  const auto wrong = [&](const std::string& what) { return invalid(base::concat(name, ":", line_number, ": ", what)); };
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    const std::vector<std::string_view> words = words_of(line.substr(0, line.find('#')));
    if (words.empty()) continue;
    if (std::exchange(is_first, false)) ids = is_numbered(words);
    if (ids) {
      Result<Numbered> one = parse_numbered(words);
      if (!one) return wrong(one.error().message);
      if (!numbered.emplace(one->id, one->host).second) return wrong(base::concat("id ", one->id, " has come before"));
      continue;
    }
    if (is_numbered(words)) return wrong("the lines before name hosts without ids; one style for the whole file");
    Result<Entry> entry = parse_line(words);
    if (!entry) return wrong(entry.error().message);
    entries.push_back(std::move(*entry));
  }
  if (is_first) return invalid(name + ": it names no host");
  if (!ids) {
    Result<Placement> placement = place(entries);
    return placement ? placement : invalid(name + ": " + placement.error().message);
  }
  Placement placement;
  for (const auto& [id, host] : numbered) {
    if (id != static_cast<int>(placement.size())) return invalid(base::concat(name, ": id ", placement.size(), " is missing"));
    placement.push_back(host);
  }
  return placement;
}

}  // namespace poseidon::launch

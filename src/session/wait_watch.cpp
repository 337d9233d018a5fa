#include "session/wait_watch.h"

#include "base/log.h"
#include "base/text.h"

namespace poseidon::session {
namespace {

constexpr runtime::Duration kInterval = std::chrono::seconds(1);
constexpr std::size_t kReportedMax = 4;

}  // namespace

WaitWatch::WaitWatch(runtime::Runtime& runtime, WaitLimits limits, Waits waits)
    : runtime_(runtime), limits_(limits), waits_(std::move(waits)) {
  schedule();
}

WaitWatch::~WaitWatch() { runtime_.cancel(timer_); }

void WaitWatch::schedule() {
  timer_ = runtime_.after(kInterval, [this] {
    look();
    schedule();
  });
}

void WaitWatch::look() {
  const runtime::Duration longest = waits_.longest();
  if (longest < limits_.explain_after) {
    next_report_ = limits_.explain_after;
    return;
  }
  if (longest >= limits_.wait_max) {
    const std::vector<std::string> sentences = waits_.overdue(limits_.explain_after, 1);
    return waits_.give_up(
        Error{ErrorCode::kTimeout, base::concat("gave up: ", sentences.empty() ? "a wait without a reason" : sentences.front())});
  }
  if (longest < next_report_) return;
  // 2 s, 4 s, 8 s ...: a long wait is told a few times, not every second.
  next_report_ = 2 * longest;
  for (const std::string& sentence : waits_.overdue(limits_.explain_after, kReportedMax)) base::log::warning(sentence);
}

}  // namespace poseidon::session

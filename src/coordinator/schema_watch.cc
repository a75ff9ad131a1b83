#include "coordinator/schema_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "core/log.h"
#include "core/pause.h"
#include "core/shortage.h"
#include "schema/installed.h"

namespace relay::coordinator {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr milliseconds kPoll{200};
constexpr seconds kTimeout{30};
/// Between two looks, and before the same error causes another one.
constexpr seconds kAgain{60};
constexpr seconds kAfterTrouble{5};
/// Sessions that begin and end all the time cause no more looks than this.
constexpr seconds kLeastBetween{1};
constexpr std::size_t kNoticedMost = 10;
constexpr std::size_t kLoggedMost = 20;
constexpr std::size_t kNamedInCause = 3;

/// One cause for all problems: `check` names each.
std::optional<status::Sighting> cause_of(const std::vector<schema::Difference>& differences) {
  std::vector<std::string> named;
  std::size_t problems = 0;
  for (const schema::Difference& difference : differences) {
    if (!difference.is_problem) continue;
    if (++problems <= kNamedInCause) named.push_back(difference.message);
  }
  if (problems == 0) return std::nullopt;
  if (problems > kNamedInCause) named.push_back(fmt::format("{} more", problems - kNamedInCause));
  return status::Sighting{
      "",
      "",
      {ErrorClass::misconfigured,
       "schema_differs",
       fmt::format("the database side is not what this program needs: {}", fmt::join(named, "; ")),
       "pgtrickle-relay init; `pgtrickle-relay check` names each difference with its "
       "remedy",
       {}},
      true};
}

}  // namespace

SchemaWatch::SchemaWatch(postgres::Connection::Options options)
    : options_(std::move(options)),
      thread_([this](std::stop_token stop) { run(std::move(stop)); }) {}

SchemaWatch::~SchemaWatch() {
  thread_.request_stop();
  thread_.join();
}

void SchemaWatch::session_began() {
  const MutexLock lock(mutex_);
  other_version_.reset();
  asked_ = true;
}

void SchemaWatch::installed() {
  const MutexLock lock(mutex_);
  noticed_.clear();
  asked_ = true;
}

void SchemaWatch::notice(const Error& error) {
  if (!schema::may_explain(error)) return;
  const auto now = SteadyClock::now();
  const MutexLock lock(mutex_);
  if (now >= forget_) {
    noticed_.clear();
    forget_ = now + kAgain;
  }
  if (noticed_.size() < kNoticedMost && noticed_.insert(error.message).second) asked_ = true;
}

std::optional<Error> SchemaWatch::other_version() const {
  const MutexLock lock(mutex_);
  return other_version_;
}

std::optional<status::Sighting> SchemaWatch::cause() const {
  const MutexLock lock(mutex_);
  return cause_;
}

void SchemaWatch::run(std::stop_token stop) {
  while (pause(Deadline::after(kPoll), stop)) {
    if (!is_due(SteadyClock::now())) continue;
    Result<void> looked;
    try {
      looked = look(stop);
    } catch (const std::exception& exception) {
      looked = fail(shortage::error_of(exception, "comparing the database side"));
    }
    if (looked) continue;
    // The coordinator reports what is wrong with the database.
    const MutexLock lock(mutex_);
    next_ = SteadyClock::now() + kAfterTrouble;
  }
}

bool SchemaWatch::is_due(SteadyClock::time_point now) {
  const MutexLock lock(mutex_);
  if (now < last_ + kLeastBetween || (!asked_ && now < next_)) return false;
  asked_ = false;
  last_ = now;
  next_ = SteadyClock::time_point::max();
  return true;
}

Result<void> SchemaWatch::look(std::stop_token stop) {
  const auto session = postgres::Connection::open(options_, stop);
  if (!session) return fail(session.error());
  const Deadline deadline = Deadline::after(kTimeout);
  if (const auto known = schema::refuse_other_version(**session, deadline, stop); !known) {
    const std::string& code = known.error().code;
    if (code == schema::kNewerSchema || code == schema::kOlderSchema) {
      const MutexLock lock(mutex_);
      other_version_ = known.error();
      return {};
    }
    return known;
  }
  const auto differences = schema::differences_now(**session, deadline, stop);
  if (!differences) return fail(differences.error());
  tell(*differences);
  const MutexLock lock(mutex_);
  cause_ = cause_of(*differences);
  next_ = SteadyClock::now() + kAgain;
  return {};
}

/// Logs what is new among the differences, and how many are left that are not logged.
void SchemaWatch::tell(const std::vector<schema::Difference>& differences) {
  std::set<std::string> now;
  std::size_t logged = 0;
  std::size_t left_out = 0;
  for (const auto& [is_problem, message, remedy] : differences) {
    now.insert(message);
    if (told_.contains(message)) continue;
    if (++logged > kLoggedMost) {
      ++left_out;
    } else {
      log::warn("schema", "", "{}. Remedy: {}", message, remedy);
    }
  }
  if (left_out > 0) {
    log::warn("schema", "", "{} more differences of the database side. Remedy: {}", left_out,
              "pgtrickle-relay init; `pgtrickle-relay check` names them");
  }
  if (now.empty() && !told_.empty()) {
    log::info("schema", "", "the database side is what this program needs again");
  }
  told_ = std::move(now);
}

}  // namespace relay::coordinator

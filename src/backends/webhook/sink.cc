#include "backends/webhook/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <set>

#include "backends/webhook/request.h"
#include "backends/webhook/verdict.h"
#include "config/tls.h"
#include "core/log.h"
#include "http/url.h"

namespace relay::webhook {

namespace {

/// So many requests that fail in a row, and the server is left alone for a while.
constexpr int kFailuresInARow = 5;
constexpr std::size_t kMostOpenCuts = 10000;
/// Stands for the request for an access token among the requests with messages.
constexpr std::size_t kTokenRequest = std::numeric_limits<std::size_t>::max();

std::int64_t seconds_since_1970() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

/// Sends some messages and waits for what becomes of them.
class WebhookSink::Delivery {
 public:
  Delivery(WebhookSink& sink, std::span<const Message> messages, std::vector<Run> runs,
           std::span<Outcome> outcomes, Deadline deadline, std::stop_token stop)
      : options_(sink.options_),
        client_(*sink.client_),
        attempts_(sink.attempts_),
        token_(sink.token_),
        open_cuts_(sink.open_cuts_),
        messages_(messages),
        outcomes_(outcomes),
        runs_(std::move(runs)),
        order_(messages, runs_, options_.ordered),
        parts_(runs_.size()),
        sent_with_(runs_.size()),
        deadline_(deadline),
        lease_(sink.lease()),
        stop_(std::move(stop)) {}

  void run() {
    // While nothing was delivered, the answer was not read either.
    if (token_.is_stale(BootClock::now(), options_.timeout)) give_up();
    std::vector<http::Response> responses;
    while (true) {
      heed_lease();
      ask_for_token();
      fill();
      // A token that is being renewed comes during the next delivery.
      if (messages_under_way() == 0 && !waits_for_token_) break;
      responses.clear();
      client_.wait(responses, deadline_, stop_);
      for (http::Response& response : responses) settle(response);
      if (responses.empty() && (stop_.stop_requested() || deadline_.passed())) {
        cause_ =
            stop_.stop_requested()
                ? share({ErrorClass::cancelled, "stopped", "stopped before the answer", {}, {}})
                : share({ErrorClass::transient,
                         "deadline",
                         fmt::format("{} is too slow",
                                     waits_for_token_ ? http::origin_of(options_.oauth2.token_url)
                                                      : options_.origin),
                         {},
                         {}});
        give_up();
        halted_ = true;
        break;
      }
    }
    heed_lease();
    for (Outcome& outcome : outcomes_) {
      if (outcome.kind != Outcome::Kind::unknown || outcome.error) continue;
      if (halted_) {
        outcome.error = cause_;
      } else {
        outcome.others_may_go = true;  // it follows a message that was refused
      }
    }
  }

 private:
  void heed_lease() {
    if (halted_ || lease_.holds()) return;
    cause_ = share(lease_over());
    halted_ = true;
  }

  /// Starts as many requests as may be under way.
  void fill() {
    waits_for_token_ = false;
    while (!halted_ && lease_.holds() && messages_under_way() < options_.max_in_flight) {
      if (ready_.empty() && !take_next()) return;
      const std::string* token = token_.get(BootClock::now());
      if (options_.oauth2.in_use() && !token) {
        waits_for_token_ = token_.is_asked_for();
        if (waits_for_token_) return;
        ask_for_token();
        continue;
      }
      const std::size_t run = ready_.front();
      ready_.pop_front();
      send(run, token);
    }
  }

  /// The next run that may be sent, where there is one.
  bool take_next() {
    while (true) {
      const std::ptrdiff_t next = order_.next();
      if (next < 0) return false;
      const auto run = static_cast<std::size_t>(next);
      if (!refuse(run)) {
        parts_[run].push_back(runs_[run]);
        ready_.push_back(run);
        return true;
      }
      order_.finished(run);
    }
  }

  std::size_t messages_under_way() const {
    return client_.in_flight() - (token_.is_asked_for() ? 1 : 0);
  }

  /// One request at a time, beside those with messages.
  void ask_for_token() {
    const auto now = BootClock::now();
    if (!options_.oauth2.in_use() || halted_ || !token_.is_due(now)) return;
    client_.start(kTokenRequest, make_token_request(options_.oauth2, options_.timeout));
    token_.ask(now);
  }

  void settle_token(const http::Response& response) {
    auto granted = read_token_answer(response, options_.oauth2);
    if (granted) return token_.granted(std::move(*granted));
    const auto now = BootClock::now();
    token_.failed(now);
    if (token_.get(now)) {
      log::warn("oauth2_not_renewed", options_.pipeline, "{}; the token that there is is used on",
                granted.error().message);
      return;
    }
    cause_ = share(granted.error());
    halted_ = true;
  }

  /// A server that does not know a token any more gets the request once more, with a new one.
  bool goes_again(std::size_t run, const http::Response& response) {
    if (!options_.oauth2.in_use() || response.status != 401 || halted_ || !lease_.holds() ||
        options_.statuses.of(401) == StatusRules::Meaning::delivered) {
      return false;
    }
    token_.refused(sent_with_[run]);
    if (!again_.insert(run).second) return false;
    ready_.push_front(run);
    return true;
  }

  void give_up() {
    client_.cancel_all();
    token_.given_up();
  }

  /// A message that cannot be sent at all has a run of its own.
  bool refuse(std::size_t run) {
    Outcome& outcome = outcomes_[runs_[run].first];
    return outcome.kind == Outcome::Kind::rejected;
  }

  void send(std::size_t run, const std::string* token) {
    const Run part = parts_[run].back();
    http::Request request =
        make_request(messages_.subspan(part.first, part.count), options_, seconds_since_1970());
    request.timeout = std::min(request.timeout, deadline_.left());
    if (token) {
      request.headers.add("Authorization", "Bearer " + *token);
      sent_with_[run] = token_.version();
    }
    client_.start(run, std::move(request));
  }

  void settle(http::Response& response) {
    if (response.token == kTokenRequest) return settle_token(response);
    if (goes_again(response.token, response)) return;
    token_.hide_in(response.body);
    const std::size_t run = response.token;
    const Run part = parts_[run].back();
    Verdict verdict = judge(response, options_);
    if (verdict.counts && attempts_.refused(messages_.subspan(part.first, part.count))) {
      verdict = given_up(verdict, options_);
    }
    if (verdict.kind == Outcome::Kind::unknown) return failed(part, verdict);
    // Halves of an array that is given up fail in a row by themselves.
    if (!verdict.counts) in_a_row_ = 0;
    parts_[run].pop_back();
    if (verdict.kind == Outcome::Kind::rejected && part.count > 1) {
      // The first half goes first: its messages may share keys with the other one's.
      const std::size_t half = part.count / 2;
      parts_[run].push_back({part.first + half, part.count - half});
      parts_[run].push_back({part.first, half});
    } else {
      decided(part, verdict);
    }
    if (parts_[run].empty()) {
      order_.finished(run);
    } else {
      ready_.push_front(run);
    }
  }

  void decided(const Run& part, const Verdict& verdict) {
    for (std::size_t i = 0; i < part.count; ++i) {
      outcomes_[part.first + i] = Outcome{verdict.kind, verdict.error};
      attempts_.settled(messages_[part.first + i]);
    }
    if (options_.batch) open_cuts_.erase(std::string(messages_[part.first].id));
  }

  void failed(const Run& part, const Verdict& verdict) {
    for (std::size_t i = 0; i < part.count; ++i) {
      Outcome& outcome = outcomes_[part.first + i] = Outcome::unknown(verdict.error);
      outcome.others_may_go = verdict.counts && !verdict.leave_alone;
      outcome.halts = verdict.halts;
    }
    if (options_.batch && open_cuts_.size() < kMostOpenCuts) {
      open_cuts_[std::string(messages_[part.first].id)] = part.count;
    }
    if (!cause_ || verdict.leave_alone) cause_ = verdict.error;
    if (verdict.leave_alone || ++in_a_row_ >= kFailuresInARow) halted_ = true;
  }

  const Options& options_;
  http::Client& client_;
  Attempts& attempts_;
  AccessToken& token_;
  std::map<std::string, std::size_t, std::less<>>& open_cuts_;
  std::span<const Message> messages_;
  std::span<Outcome> outcomes_;
  const std::vector<Run> runs_;
  SendOrder order_;
  std::vector<std::vector<Run>> parts_;   // of each run, what is still to be sent; the last is next
  std::deque<std::size_t> ready_;         // runs whose next part may be sent
  std::vector<std::uint64_t> sent_with_;  // of each run, the version of its token
  std::set<std::size_t> again_;           // runs that were sent once more, with another token
  bool waits_for_token_ = false;
  Deadline deadline_;
  const Lease& lease_;
  std::stop_token stop_;
  SharedError cause_;  // why what has no outcome of its own has none
  bool halted_ = false;
  int in_a_row_ = 0;
};

Result<void> WebhookSink::open(std::stop_token) {
  if (!options_.client.tls_verify) {
    config::warn_of_no_verification(options_.pipeline, options_.origin);
  }
  client_ = std::make_unique<http::Client>(options_.client, lease());
  return {};
}

/// Runs of messages for one address each; rejected ones are alone.
std::vector<Run> WebhookSink::cut(std::span<const Message> messages,
                                  std::span<const Outcome> outcomes) {
  std::vector<Run> runs;
  const auto refused = [&](std::size_t i) { return outcomes[i].kind == Outcome::Kind::rejected; };
  std::size_t i = 0;
  while (i < messages.size()) {
    Run run{i, 1};
    std::size_t most = options_.batch && !refused(i) ? options_.batch_max_messages : 1;
    std::size_t bytes = messages[i].body.size();
    if (const auto open = open_cuts_.find(messages[i].id); most > 1 && open != open_cuts_.end()) {
      most = std::min(most, open->second);
    }
    while (run.count < most && i + run.count < messages.size()) {
      const Message& next = messages[i + run.count];
      bytes += next.body.size() + 1;
      if (refused(i + run.count) || next.subject != messages[i].subject ||
          bytes > options_.batch_max_bytes || open_cuts_.contains(next.id)) {
        break;
      }
      ++run.count;
    }
    runs.push_back(run);
    i += run.count;
  }
  return runs;
}

std::vector<Outcome> WebhookSink::deliver(std::span<const Message> messages, Deadline deadline,
                                          std::stop_token stop) {
  std::vector<Outcome> outcomes(messages.size(), Outcome::unknown(nullptr));
  if (!client_) {
    if (auto opened = open(stop); !opened) {
      const auto error = share(opened.error());
      return std::vector<Outcome>(messages.size(), Outcome::unknown(error));
    }
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (auto error = refusal(messages[i], options_)) outcomes[i] = Outcome::rejected(error);
  }
  Delivery(*this, messages, cut(messages, outcomes), outcomes, deadline, std::move(stop)).run();
  return outcomes;
}

void WebhookSink::close() {
  client_.reset();
  token_.given_up();
}

}  // namespace relay::webhook

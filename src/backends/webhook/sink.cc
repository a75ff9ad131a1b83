#include "backends/webhook/sink.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "backends/webhook/request.h"
#include "backends/webhook/verdict.h"
#include "config/tls.h"

namespace relay::webhook {

namespace {

/// So many requests that fail in a row, and the server is left alone for a while.
constexpr int kFailuresInARow = 5;
constexpr std::size_t kMostOpenCuts = 10000;

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
        open_cuts_(sink.open_cuts_),
        messages_(messages),
        outcomes_(outcomes),
        runs_(std::move(runs)),
        order_(messages, runs_, options_.ordered),
        parts_(runs_.size()),
        deadline_(deadline),
        lease_(sink.lease()),
        stop_(std::move(stop)) {}

  void run() {
    std::vector<http::Response> responses;
    while (true) {
      if (!halted_ && !lease_.holds()) {
        cause_ = share(lease_over());
        halted_ = true;
      }
      fill();
      if (client_.in_flight() == 0) break;
      responses.clear();
      client_.wait(responses, deadline_, stop_);
      for (const http::Response& response : responses) settle(response);
      if (responses.empty() && (stop_.stop_requested() || deadline_.passed())) {
        cause_ =
            stop_.stop_requested()
                ? share({ErrorClass::cancelled, "stopped", "stopped before the answer", {}, {}})
                : share({ErrorClass::transient,
                         "deadline",
                         fmt::format("{} is too slow", options_.origin),
                         {},
                         {}});
        client_.cancel_all();
        break;
      }
    }
    for (Outcome& outcome : outcomes_) {
      if (outcome.kind == Outcome::Kind::unknown && !outcome.error) outcome.error = cause_;
    }
  }

 private:
  /// Starts as many requests as may be under way.
  void fill() {
    while (!halted_ && lease_.holds() && client_.in_flight() < options_.max_in_flight) {
      const std::ptrdiff_t next = order_.next();
      if (next < 0) return;
      const auto run = static_cast<std::size_t>(next);
      if (refuse(run)) {
        order_.finished(run);
        continue;
      }
      parts_[run].push_back(runs_[run]);
      send(run);
    }
  }

  /// A message that cannot be sent at all has a run of its own.
  bool refuse(std::size_t run) {
    Outcome& outcome = outcomes_[runs_[run].first];
    return outcome.kind == Outcome::Kind::rejected;
  }

  void send(std::size_t run) {
    const Run part = parts_[run].back();
    http::Request request =
        make_request(messages_.subspan(part.first, part.count), options_, seconds_since_1970());
    request.timeout = std::min(request.timeout, deadline_.left());
    client_.start(run, std::move(request));
  }

  void settle(const http::Response& response) {
    const std::size_t run = response.token;
    const Run part = parts_[run].back();
    Verdict verdict = judge(response, options_);
    if (verdict.kind == Outcome::Kind::unknown) return failed(part, verdict);
    in_a_row_ = 0;
    parts_[run].pop_back();
    if (verdict.kind == Outcome::Kind::rejected && part.count > 1) {
      // The first half goes first: its messages may share keys with the other one's.
      const std::size_t half = part.count / 2;
      parts_[run].push_back({part.first + half, part.count - half});
      parts_[run].push_back({part.first, half});
    } else {
      for (std::size_t i = 0; i < part.count; ++i) {
        outcomes_[part.first + i] = Outcome{verdict.kind, verdict.error};
      }
      if (options_.batch) open_cuts_.erase(std::string(messages_[part.first].id));
    }
    if (parts_[run].empty()) {
      order_.finished(run);
    } else if (!halted_ && lease_.holds()) {
      send(run);
    }
  }

  void failed(const Run& part, const Verdict& verdict) {
    for (std::size_t i = 0; i < part.count; ++i) {
      outcomes_[part.first + i] = Outcome::unknown(verdict.error);
    }
    if (options_.batch && open_cuts_.size() < kMostOpenCuts) {
      open_cuts_[std::string(messages_[part.first].id)] = part.count;
    }
    if (!cause_ || verdict.leave_alone) cause_ = verdict.error;
    if (verdict.leave_alone || ++in_a_row_ >= kFailuresInARow) halted_ = true;
  }

  const Options& options_;
  http::Client& client_;
  std::map<std::string, std::size_t, std::less<>>& open_cuts_;
  std::span<const Message> messages_;
  std::span<Outcome> outcomes_;
  const std::vector<Run> runs_;
  SendOrder order_;
  std::vector<std::vector<Run>> parts_;  // of each run, what is still to be sent; the last is next
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
}

}  // namespace relay::webhook

// What `check` sees of sinks and sources. A server is asked by HEAD, and by OPTIONS where it does
// not like that: neither may change anything at a server, and no message is sent.

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "backends/webhook/oauth2.h"
#include "backends/webhook/receiver.h"
#include "backends/webhook/receiver_source.h"
#include "backends/webhook/request.h"
#include "backends/webhook/sink.h"
#include "backends/webhook/verdict.h"

namespace relay::webhook {

namespace {

bool refuses(int status) {
  constexpr std::array kRefusals = {401, 403, 404, 410};
  return std::ranges::find(kRefusals, status) != kRefusals.end();
}

std::int64_t seconds_since_1970() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Error refused(int status, std::string_view asked, const Options& options) {
  return misconfigured(
      fmt::format("http_{}", status),
      fmt::format("{} answered {} to {}", options.origin, status, asked),
      status == 404 || status == 410
          ? "look at the path of url: curl -i -X OPTIONS URL shows what the server "
            "knows there"
          : remedy_of(status));
}

}  // namespace

/// A server that knows the address for another method should answer 405, which says nothing here;
/// some answer 404 to HEAD, so that OPTIONS has to say the same. Who we are, HEAD tells by itself.
Inspection WebhookSink::inspect(const std::optional<std::string>& subject, std::stop_token stop) {
  Inspection found;
  if (!subject) return found;
  const auto address = address_of(*subject, options_);
  if (!address) {
    Error error = address.error();
    error.error_class = ErrorClass::misconfigured;
    found.problems.push_back(std::move(error));
    return found;
  }
  http::Client client(options_.client);
  std::string token;
  if (options_.oauth2.in_use()) {
    const auto answer = client.fetch(make_token_request(options_.oauth2, options_.timeout),
                                     Deadline::after(options_.timeout), stop);
    auto granted = answer ? read_token_answer(*answer, options_.oauth2)
                          : fail(answer.error().in_context("asking for an access token"));
    if (!granted) {
      found.problems.push_back(granted.error());
      return found;
    }
    token = std::move(granted->text);
  }
  const auto ask = [&](std::string_view method) {
    auto request = make_probe(method, *address, options_, seconds_since_1970());
    if (!token.empty()) request.headers.add("Authorization", "Bearer " + token);
    return client.fetch(std::move(request), Deadline::after(options_.timeout), stop);
  };
  const auto head = ask("HEAD");
  if (!head) {
    found.problems.push_back(head.error());
  } else if (head->status == 401) {
    found.problems.push_back(refused(head->status, "HEAD", options_));
  } else if (refuses(head->status)) {
    const auto choices = ask("OPTIONS");
    if (choices && refuses(choices->status)) {
      found.problems.push_back(refused(head->status, "HEAD and OPTIONS", options_));
    }
  }
  return found;
}

Inspection ReceiverSource::inspect(std::stop_token) {
  return Inspection::of(Receiver::could_start(options_));
}

std::vector<Claim> ReceiverSource::claims() const {
  const bool everywhere = options_.host == "0.0.0.0" || options_.host == "::";
  return {{.what = fmt::format("the port {}", options_.port),
           .servers = everywhere ? std::vector<std::string>() : std::vector{options_.host},
           .effect = "only one of them can listen there",
           .remedy = "give each pipeline an address of its own with listen"}};
}

}  // namespace relay::webhook

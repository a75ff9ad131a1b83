#include "backends/webhook/receiver_gate.h"

#include <fmt/core.h>

#include "backends/webhook/receiver_provider.h"
#include "core/log.h"
#include "core/text.h"

namespace relay::webhook {

namespace {

/// What HTTP itself asks of a head.
std::optional<Refusal> check_framing(const ReceivedRequest& request, const Framing& framing) {
  if (!framing.http_1_0 && !request.header("host")) {
    return Refusal{400, "malformed", "the header Host is missing"};
  }
  const auto coding = request.header("transfer-encoding");
  if (coding && lower_case(*coding) != "chunked") {
    return Refusal{501, "transfer_encoding", "of the transfer codings only chunked is known"};
  }
  return std::nullopt;
}

}  // namespace

std::optional<Refusal> ReceiverGate::head(const ReceivedRequest& request, const Framing& framing,
                                          SteadyClock::time_point now) const {
  if (auto wrong = check_framing(request, framing)) return wrong;
  if (auto wrong = check_head(request, options_.path)) return wrong;
  if (!options_.auth.head_allowed(request)) return unauthorised();
  if (!framing.length && !framing.chunked) {
    return Refusal{411, "length_required", "give Content-Length, or send chunks"};
  }
  switch (queue_.room(now)) {
    case RequestQueue::Room::free:
      return std::nullopt;
    case RequestQueue::Room::full:
      return not_now("too many messages wait to be committed");
    case RequestQueue::Room::stalled:
    case RequestQueue::Room::closed:
      break;
  }
  return not_now("nothing can be committed at the moment");
}

std::optional<Refusal> ReceiverGate::whole(const ReceivedRequest& request,
                                           std::chrono::system_clock::time_point now) const {
  if (!options_.auth.body_allowed(request, now)) return unauthorised();
  if (auto wrong = check_provider_body(options_.auth.kind(), request)) return wrong;
  return check_body(request);
}

Refusal ReceiverGate::unauthorised() const {
  log::failure("unauthorised", options_.pipeline,
               Error{ErrorClass::rejected,
                     "unauthorised",
                     fmt::format("requests to {} are refused with 401", options_.listen),
                     options_.auth.signs()
                         ? "compare signature_secret with the sender's secret, and look at the "
                           "clock of this machine"
                         : "give the clients the secret that auth asks for",
                     {}});
  return Refusal{401, "unauthorised", "authentication is missing or wrong"};
}

}  // namespace relay::webhook

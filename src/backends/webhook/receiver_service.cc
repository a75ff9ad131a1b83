#include "backends/webhook/receiver_service.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "backends/webhook/receiver_provider.h"

namespace relay::webhook {

namespace {

constexpr std::string_view kNoRoom = "too many bytes wait to be committed";

Refusal not_committed() {
  return not_now("the message is not committed yet; send it again with the same id");
}

}  // namespace

ReceiverService::ReceiverService(const ReceiverOptions& options, RequestQueue& queue)
    : options_(options),
      queue_(queue),
      gate_(options_, queue_),
      committed_(std::make_shared<const http::Answer>(committed())) {}

http::SharedAnswer ReceiverService::answer_to(const Refusal& refusal) const {
  return std::make_shared<const http::Answer>(refused(refusal, options_.auth.challenge()));
}

http::SharedAnswer ReceiverService::check_head(const ReceivedRequest& request,
                                               const http::Framing& framing) {
  const auto wrong = gate_.head(request, framing, SteadyClock::now());
  return wrong ? answer_to(*wrong) : nullptr;
}

void ReceiverService::begin(ReceivedRequest&& request, http::PendingAnswer pending) {
  if (const http::SharedAnswer answer = answer_at_once(request)) {
    queue_.give_back(request.body.size());
    return pending.send(answer);
  }
  std::int64_t number = 0;
  if (const auto wrong = hand_over(std::move(request), number)) {
    return pending.send(answer_to(*wrong));
  }
  pending.allow(options_.response_timeout, number);
  open_.push_back({number, std::move(pending)});
}

http::SharedAnswer ReceiverService::answer_at_once(const ReceivedRequest& request) const {
  if (const auto wrong = gate_.whole(request, std::chrono::system_clock::now())) {
    return answer_to(*wrong);
  }
  auto answer = handshake_answer(options_.auth.kind(), request);
  return answer ? std::make_shared<const http::Answer>(std::move(*answer)) : nullptr;
}

std::optional<Refusal> ReceiverService::hand_over(ReceivedRequest&& request, std::int64_t& number) {
  const std::size_t head = request.head_bytes();
  std::size_t reserved = request.body.size();
  std::string_view why = kNoRoom;
  if (queue_.reserve(head)) {
    reserved += head;
    if (const auto taken = queue_.add(std::move(request), reserved)) {
      number = *taken;
      return std::nullopt;
    }
    why = "nothing can be committed at the moment";
  }
  queue_.give_back(reserved);
  return not_now(why);
}

http::SharedAnswer ReceiverService::late(std::int64_t number) {
  const auto found =
      std::lower_bound(open_.begin(), open_.end(), number,
                       [](const Open& one, std::int64_t wanted) { return one.number < wanted; });
  if (found != open_.end() && found->number == number) open_.erase(found);
  queue_.abandon(number);
  return answer_to(not_committed());
}

void ReceiverService::settle(std::int64_t number) {
  while (!open_.empty() && open_.front().number <= number) {
    open_.front().pending.send(committed_);
    open_.pop_front();
  }
}

void ReceiverService::give_up_open() {
  if (open_.empty()) return;
  const http::SharedAnswer answer = answer_to(not_committed());
  for (const Open& one : open_) one.pending.send(answer);
  open_.clear();
}

http::SharedAnswer ReceiverService::refusal(const http::Problem& problem) {
  using Kind = http::Problem::Kind;
  switch (problem.kind) {
    case Kind::malformed:
      return answer_to({400, "malformed", problem.detail});
    case Kind::head_too_large:
      return answer_to({431, "header_too_large", "the head of the request is too large"});
    case Kind::body_too_large:
      return answer_to({413, "too_large", "the body is too large"});
    case Kind::too_slow:
      return answer_to({408, "too_slow", "the request took too long"});
    case Kind::no_room:
      return answer_to(not_now(kNoRoom));
    case Kind::too_many_connections:
      return answer_to(not_now("too many connections"));
    case Kind::stopping:
      return answer_to(not_now("the receiver is stopping"));
    case Kind::cut_off:
      break;
  }
  return nullptr;
}

}  // namespace relay::webhook

package oauth

import (
	"context"
	"net/http"
	"net/url"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Push hands an authorization request to the server itself (RFC 9126 section 2) and returns where to send the browser, which then
// carries nothing but a reference. e.URL is the pushed authorization request endpoint, e the client there as at the token endpoint.
// Errors as Exchange.
func (c Client) Push(ctx context.Context, e Endpoint, r AuthorizationRequest) (string, error) {
	params, err := r.params()
	if err != nil {
		return "", err
	}
	e.ExtraParams, e.Request = nil, BodyForm // extra ones are the token endpoint's; section 2.1 knows forms alone
	if e.Auth == AuthBasic || e.Auth == AuthSecretUser {
		params.Set("client_id", r.ClientID)
	}
	answer, err := c.post(ctx, e, params)
	if err != nil {
		return "", err
	}
	doc, err := parseAnswer(answer)
	if answer.status != http.StatusCreated && answer.status != http.StatusOK || !answer.whole || err != nil {
		return "", e.refusal(answer, doc).fault(e.URL)
	}
	reference, _ := at(doc, "/request_uri").(string)
	if !visible(reference, maxReference) {
		return "", fault.New(fault.Unavailable, hostOf(e.URL)+" took the request and gave no usable request_uri; ask your operator", nil)
	}
	return r.at(url.Values{"client_id": {r.ClientID}, "request_uri": {reference}})
}

const maxReference = 2048

package portal

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"frontdesk.dev/frontdesk/internal/connect"
)

// deviceView is the page that shows a code to enter at the vendor.
type deviceView struct {
	Title, Code, URI, Host, Complete, Here, Cancel string
	Expires                                        time.Time
}

// deviceAgain is how often that page looks by itself whether the code was entered. A header does it, so that it works without
// JavaScript, and a person can look at once by a link.
const deviceAgain = "5"

// device shows a code to the one who asked for it, and goes on once he has entered it, wherever he did.
func (s *Site) device(w http.ResponseWriter, r *http.Request, v visit) error {
	id := r.PathValue("id")
	x, err := s.Requests.Device(r.Context(), v.Visitor, id)
	if err != nil {
		return err
	}
	switch {
	case x.Status == connect.Done && x.End.Swap != "":
		return s.ask(w, r, swapped{Old: x.End.Was, New: x.End.Is, State: x.End.Swap, Title: s.title(string(x.Upstream)), Sites: x.End.Sites})
	case x.Status == connect.Done:
		q := url.Values{"at": {string(x.Upstream)}, "as": {string(x.End.Connection)}, "request": {string(x.Request)}, "return": {x.Return}}
		http.Redirect(w, r, s.Prefix+"/portal/done?"+q.Encode(), http.StatusSeeOther)
		return nil
	case x.Status != connect.Open || !s.Now().Before(x.Expires):
		back := notice{Lines: []string{sentence(cmpOr(x.End.Why, "the code was not entered in time")), "Nothing was connected. You can start again."}, Link: s.Prefix + "/portal/", Button: "What is connected"}
		if x.Request != "" {
			back.Link, back.Button = s.Prefix+"/connect/"+string(x.Request), "Start again"
		}
		s.render(w, v, "notice", "The code is over", back)
		return nil
	}
	title := s.title(string(x.Upstream))
	here := s.Prefix + "/portal/device/" + url.PathEscape(id)
	w.Header().Set("Refresh", deviceAgain+"; url="+here)
	s.render(w, v, "device", "Enter this code at "+title, deviceView{Title: title, Code: x.Code.Code, URI: x.Code.URI, Host: hostOf(x.Code.URI), Complete: x.Code.Complete, Here: here,
		Cancel: s.local(x.Return, s.Prefix+"/portal/"), Expires: x.Expires})
	return nil
}

// ask sends the person to the question which of two accounts he means. Its page has a clean address.
func (s *Site) ask(w http.ResponseWriter, r *http.Request, k swapped) error {
	plain, err := json.Marshal(k)
	if err != nil {
		return err
	}
	q := url.Values{"between": {s.Browser.Seal(purposeSwap, s.Browser.Binding(w, r), plain)}}
	http.Redirect(w, r, s.Prefix+"/portal/swap?"+q.Encode(), http.StatusSeeOther)
	return nil
}

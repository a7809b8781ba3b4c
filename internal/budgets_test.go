package internal

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Budgets of the product's code. Raising one needs a reason in the commit that does it.
const (
	maxPackageLines = 2500
	maxPackageFiles = 12
	maxFunction     = 80
	maxFunctionP95  = 50
	maxParameters   = 5
	maxMethods      = 4
	maxFields       = 15
)

// over are what is over a budget by design: how much it may have, and why.
var over = map[string]struct {
	n   int
	why string
}{
	"struct cmd/frontdesk/config.File":         {24, "the operator's file: one field a key at its top level"},
	"struct cmd/frontdesk/config.Server":       {21, "the same, of a server"},
	"struct cmd/frontdesk/config.Upstream":     {20, "the same, of an upstream"},
	"struct cmd/frontdesk.desk":                {25, "the wiring: what both sides of the program have"},
	"struct cmd/frontdesk.waist":               {20, "the wiring of the broker's side: every room once"},
	"struct internal/catalog.Provider":         {23, "the facts of a vendor, a field each, as a person reviews them"},
	"struct internal/catalog.Upstream":         {16, "what the config says of an upstream"},
	"struct internal/catalog.ProviderOAuth":    {26, "the same, of its authorization server"},
	"struct internal/catalog.Server":           {18, "what the config says of a server"},
	"struct internal/admin.API":                {19, "what operators may look into, a field each"},
	"struct internal/audit.Record":             {25, "one line of the log"},
	"struct internal/kit/oauth.Endpoint":       {17, "a vendor's facts and our registration there, a field each"},
	"struct internal/connect.Desk":             {20, "what the room stands on, a field each, and what it remembers"},
	"struct internal/exchange/refresh.Machine": {16, "what the room stands on, a field each"},
	"struct internal/gateway.Gateway":          {20, "the same"},
	"struct internal/hosted.process":           {28, "one process: what it is, its pipes, and its state under one lock"},
	"struct internal/identity.Caller":          {18, "who is asking, as the token says it"},
	"struct internal/issuer.Family":            {16, "a row"},
	"struct internal/kit/mcp.Message":          {24, "where the parts of a message stand"},
	"struct internal/portal.holding":           {17, "what a page shows of a connection"},
	"struct internal/vault.Connection":         {20, "a row"},
}

// TestBudgets measures what a reader has to hold in his head at once.
func TestBudgets(t *testing.T) {
	lines, files, docs := map[string]int{}, map[string]int{}, map[string]bool{}
	var lengths []int
	check := func(what string, n, budget int) {
		if n <= budget {
			return
		}
		if o, ok := over[what]; !ok || n > o.n {
			t.Errorf("%s: %d, the budget is %d (the exception %d)", what, n, budget, o.n)
		}
	}
	for _, f := range productFiles(t) {
		lines[f.pkg] += strings.Count(f.text, "\n")
		files[f.pkg]++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, f.path, f.text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		docs[f.pkg] = docs[f.pkg] || file.Doc != nil
		ast.Inspect(file, func(n ast.Node) bool {
			switch d := n.(type) {
			case *ast.FuncDecl:
				length := set.Position(d.End()).Line - set.Position(d.Pos()).Line + 1
				lengths = append(lengths, length)
				name := "function " + f.pkg + "." + receiver(d) + d.Name.Name
				check(name, length, maxFunction)
				check(name+" parameters", parameters(d), maxParameters)
			case *ast.TypeSpec:
				switch k := d.Type.(type) {
				case *ast.InterfaceType:
					check("interface "+f.pkg+"."+d.Name.Name, k.Methods.NumFields(), maxMethods)
				case *ast.StructType:
					check("struct "+f.pkg+"."+d.Name.Name, k.Fields.NumFields(), maxFields)
				}
			}
			return true
		})
	}
	for pkg := range lines {
		check("package "+pkg+" lines", lines[pkg], maxPackageLines)
		check("package "+pkg+" files", files[pkg], maxPackageFiles)
		if !docs[pkg] {
			t.Errorf("%s: no package comment", pkg)
		}
	}
	slices.Sort(lengths)
	if p95 := lengths[len(lengths)*95/100]; p95 > maxFunctionP95 {
		t.Errorf("one function in twenty is longer than %d lines, the budget is %d", p95, maxFunctionP95)
	}
	t.Log(report(lines, files, lengths))
}

// parameters are those beside the context, which every function has that waits; a handler's answer and request are one.
func parameters(d *ast.FuncDecl) int {
	n := d.Type.Params.NumFields()
	if n == 0 {
		return 0
	}
	if typeName(d.Type.Params.List[0].Type) == "Context" {
		n--
	}
	if l := d.Type.Params.List; len(l) > 1 && typeName(l[0].Type) == "ResponseWriter" && typeName(l[1].Type) == "Request" {
		n--
	}
	return n
}

func typeName(e ast.Expr) string {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if s, ok := e.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}

func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	t := d.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return "(" + id.Name + ")."
	}
	return ""
}

// report is what `make budgets` prints.
func report(lines, files map[string]int, lengths []int) string {
	var b strings.Builder
	var pkgs []string
	for pkg := range lines {
		pkgs = append(pkgs, pkg)
	}
	slices.SortFunc(pkgs, func(a, b string) int { return lines[b] - lines[a] })
	fmt.Fprintf(&b, "%d functions, median %d lines, p95 %d, longest %d\n", len(lengths), lengths[len(lengths)/2], lengths[len(lengths)*95/100], lengths[len(lengths)-1])
	for _, pkg := range pkgs {
		fmt.Fprintf(&b, "%6d lines %3d files  %s\n", lines[pkg], files[pkg], pkg)
	}
	return b.String()
}

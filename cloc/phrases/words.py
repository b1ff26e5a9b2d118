"""The word lists behind `cloc.phrases`. Every word that stands in none of them is taken for a noun."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OWLV2_GENERIC = _words(
    """alibaba aliexpress amazon available background blog buy co com description diy download facebook free gif hd
    ideas illustration illustrations image images img instagram jpg online org original page pdf photo
    photography photos picclick picture pictures png porn premium resolution royalty sale sex shutterstock stock
    svg thumbnail tumblr tumgir twitter uk uploaded vector vectors video videos wallpaper wallpapers wholesale
    www xxx youtube"""
)
"""The 61 words that CLOC's VESL takes out of captions before it looks for noun phrases, as printed in its Listing 1
(appendix C.1), which has them from OWLv2 (Minderer et al. 2023, A.2)."""

OUR_GENERIC = _words(
    """photo photos photograph photographs photographer photography picture pictures pic pics image images imagery
    snapshot shot shots screenshot thumbnail closeup close-up stock background backgrounds wallpaper wallpapers
    brand brands logo logos vector clipart illustration illustrations poster print prints graphic graphics
    design designs download downloads format file files jpg jpeg png gif pdf hd 4k resolution copyright
    watermark royalty-free istock shutterstock getty alamy flickr pinterest instagram website site blog url www
    com http https video clip footage version copy template collection gallery portfolio edition item items
    product products sale price view views scene scenes title description caption text photoshoot"""
)
"""A longer list, of ours: it also takes out what can be a thing in the image, a logo, a poster, a print."""

GENERIC = {"owlv2": OWLV2_GENERIC, "ours": OUR_GENERIC, "none": frozenset[str]()}
"""Lists of words of web captions that name no thing in the image; DetCLIPv2 takes none out."""

DETERMINERS = _words(
    """a an the this that these those my your his her its our their some any each every no another both either
    neither all several many much few various certain such what which whose"""
)
COPULAS = _words("is are was were be been being am looks look seems seem appears appear becomes gets very so too quite")
EXISTENTIAL = _words("there here this that it these those he she they")
NUMBERS = _words(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty thirty forty fifty hundred hundreds thousand thousands dozen dozens
    million first second third once twice half quarter"""
)
FUNCTION = _words(
    """of in on at aboard by with without from to into onto over under above below beneath behind beside besides between
    among amongst along across around through throughout during before after near nearby next against toward
    towards upon within inside outside off out up down for as about like than via per underneath alongside atop
    amid past since until till except despite unlike opposite beyond and or but nor yet so if while when where
    who whom because although though whether that's it's there's he's she's what's let's i'm you're they're
    we're i you he she it we they me him us them myself itself himself herself themselves ourselves yourself
    mine yours hers ours theirs someone something somebody anyone anything everyone everything nothing nobody
    other others one's not n't never always often also just only even still again ever here there then now how
    why too very quite rather almost together apart away aside ahead back-to-back else instead maybe perhaps
    already indoors outdoors today yesterday tomorrow etc eg ie vs am is are was were be been being has have had
    having do does did doing done will would shall should may might must could cannot can't don't doesn't isn't
    aren't seems seem appears appear becomes ready able way ways order well much more most less least lots same
    own be-side all-around whatever whichever thus hence yes okay ok please new-ly o oh ah"""
)
POSITIONS = _words(
    """top side sides front back middle left right end ends bottom edge corner center centre inside outside rear
    foreground distance midst position direction directions place places spot area areas part parts half stage
    attempt process action motion style type kind kinds sort sorts variety row rows line lines piece pieces
    slice slices group groups bunch couple pair pairs number lot set sets series array assortment stack pile
    herd flock pack team handful amount bit total thing things stuff time times day"""
)
"""Nouns that name no thing by themselves: a chunk of nothing else is dropped."""

MEASURES = _words(
    """row rows line lines piece pieces slice slices group groups bunch bunches couple pair pairs number lot lots
    set sets series array assortment stack stacks pile piles herd herds flock pack team handful amount bit
    variety kind kinds type types sort sorts part parts top side front back middle end edge bottom corner center
    centre sides rear fleet crowd cluster collection selection swarm bundle batch plenty trio duo range stage"""
)
"""Nouns that, before `of`, only count or place what follows."""

COLOURS = _words(
    """red green blue yellow orange purple pink brown black white gray grey golden silver beige tan maroon teal
    cyan magenta violet turquoise lavender blond blonde brunette crimson scarlet navy olive ivory cream"""
)
ADJECTIVES = COLOURS | _words(
    """big small large little tiny huge giant tall short long wide narrow thin thick fat slim skinny deep shallow
    high low old new young elderly adult modern antique ancient vintage classic fresh ripe raw fried hot cold
    warm cool wet dry dirty clean messy tidy neat clear bright dark dim light-colored shiny fluffy furry hairy
    fuzzy curly shaggy snowy sunny cloudy rainy foggy windy stormy icy rocky sandy grassy muddy dusty rusty
    empty full open closed broken wooden woolen striped plaid spotted plain bare pretty beautiful handsome cute
    lovely ugly nice good great best better bad worse worst happy sad angry sleepy lazy busy hungry thirsty
    funny silly serious friendly lonely brave calm quiet loud fast slow quick soft hard smooth rough sharp heavy
    light round flat square-shaped rectangular circular oval triangular straight curved bent steep massive
    enormous gigantic miniature mini single lone only different similar various several multiple many other main
    major local public private urban rural suburban residential commercial industrial professional amateur
    casual formal traditional typical normal regular simple fancy elegant luxury luxurious expensive cheap rich
    poor real fake artificial natural wild tame domestic domesticated male female pregnant naked nude shirtless
    barefoot bald asian african american european chinese japanese italian mexican french english british german
    indian thai greek spanish korean blonde dead alive asleep awake aware ornate rustic cozy comfortable
    spacious bushy leafy lush tropical sweet sour spicy salty tasty delicious yummy savory healthy gourmet
    homemade whole entire upper lower left right rear nearby far close distant remote-controlled upside sliced
    chopped diced tied worn torn frozen woven hidden fallen grown well-lit lit unmade unfinished made seen shown
    taken laden drawn blown eaten left-hand right-hand electric electrical digital medical musical floral
    patterned multi-colored multicolored colorful colourful decorative assorted numerous mixed non-stick
    double-decker overhead indoor outdoor inner outer vertical horizontal diagonal parallel adjacent visible
    transparent opaque blurry blurred ready fit fine crazy strange weird odd unusual unique special extra early
    late middle-aged toy-like neon pale dull vivid crisp crispy creamy crunchy cheesy juicy greasy sticky moist
    stale stray military civilian royal holy sacred religious nautical marine aerial coastal mountainous hilly
    wavy choppy sparse dense tangled tight loose long-sleeved short-sleeved sexy grumpy goofy playful cheerful
    stuffed unhappy concerned alert curious cautious intent content attached alone solitary"""
)
NOT_ADJECTIVES = _words(
    """table tables cable stable vegetable timetable turntable dish fish radish relish polish finish rubbish
    goldfish catfish swordfish olive drive hive dive archive native detective locomotive five music picnic
    traffic plastic fabric clinic mechanic comic attic critic topic garlic ceramic relic mosaic tunic bible
    crucible representative captive adhesive executive shellfish jellyfish starfish fetish parish beach-table
    constable syllable narrative collective objective"""
)
"""Nouns that the endings of adjectives would take."""

NOUNS_IN_ING = _words(
    """building ceiling painting clothing railing wedding icing frosting topping awning evening morning siding
    bedding lighting carving drawing earring crossing covering seating dressing opening stuffing string ring
    king wing spring swing sling thing sibling duckling dumpling pudding clearing landing decking flooring
    piping wiring netting offering gathering meeting herring ping wrapping filling casing fencing lining housing
    parasailing nestling gosling sterling bling paragliding scaffolding roofing molding tubing rigging plaything
    outbuilding"""
)
NOUNS_IN_ED = _words(
    """bed seed weed shed sled reed speed feed breed steed thread hotbed bloodshed flatbed seaweed bobsled need
    bunkbed deed"""
)
NOUNS_IN_LY = _words(
    """family fly belly jelly butterfly lily dragonfly assembly ally dolly bully rally holly monopoly potbelly"""
)
ADJECTIVES_IN_LY = _words(
    """curly silly ugly lovely friendly lonely elderly hilly woolly wooly bubbly lively early wrinkly"""
)

NOUNS_TOO = _words("orange light adult male female antique cream olive lavender violet blonde blond brunette alert")
"""Of the adjectives, those that are nouns where the chunk ends with them."""

COMPOUNDS = {
    "living": _words("room rooms area space"),
    "dining": _words("room rooms table tables area hall chair chairs set car"),
    "parking": _words("lot lots meter meters garage space spaces spot sign signs area deck structure"),
    "cutting": _words("board boards"),
    "chopping": _words("board boards block"),
    "frying": _words("pan pans"),
    "mixing": _words("bowl bowls"),
    "baking": _words("sheet dish pan tray"),
    "cooking": _words("pot pan pans utensils oil stove"),
    "serving": _words("tray dish plate bowl platter spoon"),
    "washing": _words("machine machines"),
    "sewing": _words("machine"),
    "vending": _words("machine machines"),
    "swimming": _words("pool pools trunks suit"),
    "sleeping": _words("bag bags"),
    "shopping": _words("cart carts bag bags mall center"),
    "sailing": _words("boat boats ship"),
    "fishing": _words("boat boats pole rod net nets"),
    "rowing": _words("boat boats"),
    "wrapping": _words("paper"),
    "measuring": _words("cup cups tape spoon"),
    "drinking": _words("glass fountain water cup straw"),
    "steering": _words("wheel"),
    "rocking": _words("chair chairs horse"),
    "folding": _words("chair chairs table"),
    "training": _words("wheels"),
    "changing": _words("table"),
    "waiting": _words("room area"),
    "walking": _words("stick path cane"),
    "riding": _words("boots helmet gear lawnmower"),
    "racing": _words("car bike"),
    "hiking": _words("boots trail"),
    "running": _words("shoes shorts"),
    "skiing": _words("gear equipment slope"),
    "surfing": _words("board boards"),
}
"""Forms in -ing that are the first half of a name when one of these words follows."""

VERBS = _words(
    """sits sit sat stands stood holds hold held eats eat ate hangs hung hang takes take took makes make wears wear
    wore carries carry carried gets get got goes go went gone comes come came puts put serves serve leans lean
    lies lie lays lay laid reads read runs ran drives drove pulls pull pushes push throws threw catches caught
    hits talks talk smiles waits wait prepares prepare uses use used grazes graze feeds fed sleeps sleep slept
    stares stare reaches reach has have includes include contains contain features consists consist depicts
    depict shows showing shown tries try keeps keep kept gives give gave given lets let says say said tells told
    thinks think knows know sees see saw finds find found brings bring brought begins begin began becomes become
    became falls fell rises rose surrounds surround decorates decorate enjoys enjoy chews chew bites licks lick
    sniffs sniff gazes gaze peers peer overlooks overlook faces approaches approach follows follow leads lead
    passes pass crosses leaves leave arrives arrive stops starts start finishes finish ends continues continue
    watches attempts performs perform practices competes compete rides rode flies flew jumps leaps leap climbs
    climb swims swim glides glide slides slid rolls spins spin turns bends bend kneels kneel crouches
    crouch squats squat poses pose laughs laugh sings sing dances cuts chops slicing cooks bakes bake fries
    pours pour fills fill drinks washes wash cleans brushes types writes write draws draw paints works work
    studies study teaches teach learns learn plays gathers gather rests relaxes relax lounges walks strolls
    stroll wanders wander roams roam marches moves move travels travel looks points waves shakes shake hugs hug
    kisses kiss pets grabs grab picks pick lifts lift raises raise swings kicks kick dribbles returns bounces
    bounce skates surfs skiis skateboards snowboards eaten fits fit covers belongs belong matches appears helps
    help needs wants want loves likes displays allows allow sprays stacked topped ridden ride hit"""
)
AMBIGUOUS = _words(
    """sails watches drinks flies plays swings rides walks looks rests cooks brushes turns covers crosses waves types
    slices pets displays bats works points stops sprays faces sets cleans kicks paints returns lounges shakes
    matches rolls ride hit run walk stand stands play work leaves loves passes needs chops ends spins uses start
    finish study race park watch fly rest swing jump skate surf ski cook cut drink look cross point turn wave
    cover drive sail fish paint brush kick catch throw call fight dance march practice bike display laugh hold
    pose use spin pick board pull push slide climb smile kiss hug face stop end match show bite leap swim bend
    bounce stretch lift reach pet features dances skateboards snowboards skates surfs marches"""
)
"""Nouns and verbs alike: a verb after `to`, a pronoun, or a noun that something other than a noun follows."""

TO_VERB = _words("to will would can could should may might must i you we they he she who that does do did let's")
PLURALS = _words("people men women children sheep geese mice feet teeth cattle police fish deer boys kids persons")
